//! What the sockets of a store share: where they are, who may talk, and how messages are framed.

mod frame;
mod path;
mod peer;

pub(crate) use frame::{put, read, take};
pub(crate) use path::{bind, short_path};
pub(crate) use peer::is_trusted;
