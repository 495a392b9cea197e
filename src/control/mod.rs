//! The control socket: the process that has a store open serves it to others.
//!
//! ```text
//!  RemoteEngine ──Ask──▶ control.sock ──▶ server (one thread, one epoll) ──▶ engine
//!       ▲                                   │  futures: wait, create, stop …
//!       └──── Answer · Items ◀──────────────┘  lanes: what blocks
//! ```

mod attached;
mod client;
#[cfg(feature = "test-util")]
pub(crate) mod fuzzing;
mod hello;
mod server;
mod trouble;
mod wire;

#[cfg(feature = "cli")]
pub(crate) use attached::Attached;
pub use attached::connect_or_open;
pub use client::RemoteEngine;
pub(crate) use hello::PROTOCOL;
pub(crate) use server::Server;

/// The socket in the store.
pub(crate) const SOCKET: &str = "control.sock";
