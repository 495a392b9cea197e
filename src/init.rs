//! What a host calls before everything else.

/// Call this first in `main`, before any thread or runtime is started.
///
/// Today it returns at once. It is here so that programs written now need no
/// change when a helper process can outlive its host: that helper will be this
/// very binary, executed again, and this call is where it will go its own way and
/// not return. A program that did other things before would do them again.
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
pub fn init() {}
