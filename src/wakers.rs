//! Those who are woken instead of blocking.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// Those who wait for one and the same thing, each by its number. Whoever was woken has to come again.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    waiting: HashMap<u64, Waker>,
}

/// A number is never used again, by whichever list: one who comes late does not take another's place.
static LAST: AtomicU64 = AtomicU64::new(0);

impl Wakers {
    /// Adds one, or puts it in the place of the one that `key` stands for.
    pub(crate) fn add(&mut self, key: &mut Option<u64>, waker: &Waker) {
        let key = *key.get_or_insert_with(|| LAST.fetch_add(1, Ordering::Relaxed));
        match self.waiting.get_mut(&key) {
            Some(known) => known.clone_from(waker),
            None => drop(self.waiting.insert(key, waker.clone())),
        }
    }

    /// It waits no longer.
    pub(crate) fn remove(&mut self, key: u64) {
        self.waiting.remove(&key);
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// All of them, to be woken by [`wake`] when no lock is held: they run code of others.
    pub(crate) fn take(&mut self) -> Vec<Waker> {
        if self.waiting.is_empty() {
            Vec::new()
        } else {
            self.waiting.drain().map(|(_, waker)| waker).collect()
        }
    }
}

/// Wakes them, all of them also when one of them panics; then this does.
pub(crate) fn wake(wakers: Vec<Waker>) {
    let mut panicked = None;
    for waker in wakers {
        let woken = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        panicked = panicked.or(woken.err());
    }
    if let Some(panicked) = panicked
        && !thread::panicking()
    {
        resume_unwind(panicked);
    }
}

struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks this thread until `poll` is ready; `None` when the deadline passes before.
pub(crate) fn block_on_poll<T>(
    deadline: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    let waker = Waker::from(Arc::new(Parked(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = poll(&mut context) {
            return Some(value);
        }
        match deadline {
            None => thread::park(),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return None;
                }
                thread::park_timeout(left);
            }
        }
    }
}

/// Blocks this thread until a future is ready; `None` when the deadline passes before.
pub(crate) fn block_on_until<T>(
    deadline: Option<Instant>,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    block_on_poll(deadline, |context| future.as_mut().poll(context))
}

/// Blocks this thread until a future is ready.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    block_on_until(None, future).expect("without a deadline there is always a value")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    pub(crate) struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("as the test wants it");
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn one_who_comes_again_is_woken_once() {
        let (count, mut wakers, mut key) = (Arc::<Count>::default(), Wakers::default(), None);
        let waker = Waker::from(count.clone());
        for _ in 0..3 {
            wakers.add(&mut key, &waker);
        }
        wake(wakers.take());
        wake(wakers.take());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        wakers.add(&mut key, &waker);
        wakers.remove(key.unwrap());
        assert!(wakers.is_empty());
        assert_eq!(Arc::strong_count(&count), 2, "nothing is kept of one who has gone");
    }

    #[test]
    fn one_that_panics_keeps_no_other_from_being_woken() {
        let count = Arc::<Count>::default();
        let all = vec![Arc::new(Panics).into(), Waker::from(Arc::clone(&count))];
        assert!(catch_unwind(AssertUnwindSafe(|| wake(all))).is_err());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn blocking_ends_with_the_value_or_the_deadline() {
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(block_on_until(Some(soon), std::future::pending::<()>()), None);
        assert_eq!(block_on(async { 7 }), 7);
        let shared = Arc::new(parking_lot::Mutex::new((false, None::<Waker>)));
        let other = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            block_on_poll(None, |context| {
                let mut state = other.lock();
                state.1 = Some(context.waker().clone());
                if state.0 { Poll::Ready(()) } else { Poll::Pending }
            })
        });
        let waker = loop {
            if let Some(waker) = shared.lock().1.clone() {
                break waker;
            }
            thread::yield_now();
        };
        shared.lock().0 = true;
        waker.wake();
        assert_eq!(thread.join().unwrap(), Some(()));
    }
}
