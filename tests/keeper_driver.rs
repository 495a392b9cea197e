//! The keeper holds what a supervising host holds: the same tests, over the socket.

#![cfg(target_os = "linux")]
#![allow(clippy::duplicate_mod, reason = "each of these files is a test of its own, too")]

#[path = "process_endings.rs"]
mod endings;
#[path = "process_logs.rs"]
mod logs;
#[path = "process_stop.rs"]
mod stop;
