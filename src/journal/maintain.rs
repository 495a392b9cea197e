//! Packing sealed segments into the history, off everybody's path.

use parking_lot::Mutex;

use super::core::Core;

/// The maintenance of a journal: started when there is something to do.
#[derive(Debug, Default)]
pub(crate) struct Maintenance {
    state: Mutex<()>,
}

impl Maintenance {
    /// Ends its thread.
    pub(crate) fn stop(&self) {}

    /// A segment was sealed: whether it is time to pack is decided here.
    pub(crate) fn segment_sealed(&self, _core: &Core) {
        let _state = self.state.lock();
    }
}
