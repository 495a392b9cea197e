//! What a host calls before everything else.

/// Call this first in `main`, before any thread or runtime is started.
///
/// It lets this very program serve as the [keeper](crate::driver::process::Supervision::Keeper) of its
/// stores: the keeper is this program, executed again, and this call is where it goes its own way and does
/// not return. In every other case it returns at once. What a program does before this call, its keeper does too.
///
/// A program that does not call it supervises its atoms by itself, unless it asks for a keeper.
///
/// `#[tokio::main]` starts its runtime before the first line of `main`. So write a
/// plain `main`, which calls this and then builds the runtime:
///
/// ```
/// # struct Runtime;
/// # impl Runtime { fn block_on(&self, future: impl Future<Output = ()>) { drop(future) } }
/// # fn runtime() -> Runtime { Runtime }
/// async fn serve() { /* … */ }
///
/// fn main() {
///     caesium::init();
///     let runtime = runtime(); // tokio::runtime::Runtime::new(), for one
///     runtime.block_on(serve());
/// }
/// ```
pub fn init() {
    #[cfg(target_os = "linux")]
    {
        crate::driver::process::serve_if_asked();
        crate::driver::process::can_serve();
    }
}
