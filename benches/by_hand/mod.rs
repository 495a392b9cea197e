//! What the lifecycle's table is compared with, here and in `peers/`.

use caesium::lifecycle::{EventKind, State};

/// The table as somebody in a hurry would write it: what there is to compare with.
pub(crate) fn by_hand(state: State, event: EventKind) -> Option<State> {
    use EventKind as E;
    use State as S;
    match (state, event) {
        (S::Created, E::Started) => Some(S::Running),
        (S::Created, E::StartFailed | E::Withdrawn | E::LostSight) => Some(S::Stopped),
        (S::Created | S::Running | S::Stopping, E::StopAsked) => Some(S::Stopping),
        (S::Running | S::Stopping, E::Exited | E::LostSight) => Some(S::Stopped),
        (S::Stopping, E::Started) => Some(S::Stopping),
        (S::Stopping, E::StartFailed | E::Withdrawn) => Some(S::Stopped),
        (S::Stopped | S::Invalid, E::DeleteAsked) => Some(S::Deleting),
        (S::Deleting, E::Removed) => Some(S::Deleted),
        (S::Deleted | S::Invalid, _) => None,
        (_, E::Contradiction) => Some(S::Invalid),
        _ => None,
    }
}
