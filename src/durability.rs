//! How much an acknowledgement promises.

/// How much an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// What is acknowledged is on disk: it survives a power cut. The default.
    #[default]
    Sync,
    /// What is acknowledged is written, and on disk at the latest after this
    /// time: it survives the end of the host, and a power cut takes the last events.
    Batched(std::time::Duration),
    /// Nothing is written: an engine needs a directory that is not a store yet, or none. For tests.
    Memory,
}
