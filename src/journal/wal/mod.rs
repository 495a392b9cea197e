//! The write-ahead log: what an acknowledgement rests on.

pub(crate) mod create;
pub(crate) mod preface;
pub(crate) mod reader;
pub(crate) mod recover;
pub(crate) mod segment;
