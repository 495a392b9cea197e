//! What an atom's leader leaves behind.

use crate::text::named;

/// What becomes of an atom's processes that remain when its leader has exited by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Leftovers {
    /// They are killed. The default: an atom that has stopped has nothing that runs.
    #[default]
    Kill,
    /// They are left alone, unwatched: for a program that puts itself into the background.
    Keep,
}

named!(Leftovers, "policy for leftover processes", {
    Kill => "kill",
    Keep => "keep",
});
