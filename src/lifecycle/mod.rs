//! The lifecycle of an atom: a pure state machine.
//!
//! No input or output, no clock, no thread, no allocation: time and chance are
//! arguments. One table, [`next`], decides; [`transition`] applies an event to
//! a [`Life`], the same way when it happens and when it is replayed.
//!
//! ```
//! use caesium::lifecycle::{Event, Life, State, transition};
//! use caesium::Timestamp;
//!
//! let t = Timestamp::from_micros;
//! let life = Life::created(t(1));
//! let life = transition(&life, &Event::Started { pid: Some(42) }, t(2)).unwrap();
//! assert_eq!(life.state(), State::Running);
//! let refused = transition(&life, &Event::Removed, t(3)).unwrap_err();
//! assert_eq!(
//!     refused.to_string(),
//!     "event removed is not allowed in state running \
//!      (allowed: stop_asked, exited, lost_sight, contradiction)",
//! );
//! ```

mod draw;
mod event;
mod outcome;
mod retry;
mod state;
mod transition;

pub use draw::Drawing;
pub use event::{Event, EventKind, EventSet, StopCause, StopOrder};
pub use outcome::{Ending, Evidence, Outcome, OutcomeSet, Reason, WaitStatus};
pub use retry::{Backoff, OnInvalid, RetryPolicy, Verdict, decide};
pub use state::State;
pub use transition::{
    End, Life, Rejection, Run, Stop, allowed_events, can, next, transition, transitions,
};
