//! The journal: every event, durable first in a write-ahead log, kept in sled.

mod error;
mod record;
mod view;

pub use error::JournalError;
pub use record::{Creation, Fact, Note, Record};
pub use view::{Unfit, View};
