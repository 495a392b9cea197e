//! What the sockets of a store share: where they are, who may talk, and how messages are framed.

mod frame;
mod path;
mod peer;
mod pipe;

pub(crate) use frame::{MAX_FRAME, put, read, take};
pub(crate) use path::{bind, short_path};
pub(crate) use peer::check_peer;
pub(crate) use pipe::Pipe;
