//! The only place that spawns. A scope is a branch of the tree of tasks: it can be asked to stop, and whoever asked can
//! wait until every task below it has ended. A panic ends one task and is logged; it never takes another with it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// A branch of the tree of tasks. Clones are the same branch.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// Counts as a task of its branch for as long as it lives: for what is between two tasks.
#[derive(Debug)]
pub struct TaskToken {
    _token: TaskTrackerToken,
}

impl Scope {
    pub fn new() -> Scope {
        Scope::default()
    }

    /// A branch below this one: it stops when this one stops, and can be stopped and awaited alone.
    pub fn child(&self) -> Scope {
        Scope { tracker: TaskTracker::new(), stop: self.stop.child_token() }
    }

    /// Starts a task on the calling thread's runtime. A thread whose runtime is being shut down starts nothing more:
    /// the future is dropped.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let Ok(runtime) = Handle::try_current() else { return };
        self.tracker.spawn_on(Noted { name, future }, &runtime);
    }

    pub fn token(&self) -> TaskToken {
        TaskToken { _token: self.tracker.token() }
    }

    /// Asks every task of this branch and below to end.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Resolves when the branch has been asked to stop. Cancel-safe.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Resolves when every task of this branch (not those of its children) has ended. Cancel-safe.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// How many tasks of this branch are alive.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }
}

/// Does long work on a thread where it holds up nobody; `None` when it panicked, which has been logged by then, or when
/// the runtime is being shut down.
#[expect(clippy::disallowed_methods, reason = "the place that waits for such threads")]
pub async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// How long a piece of work takes that [`compute_in_turn`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Milliseconds.
    Short,
    /// Up to a second, and perhaps at a stranger's wish: one such at a time in the whole process.
    Long,
}

/// As [`compute`], for what many may want at the same time, such as proofs of passwords: only a few are done at once,
/// in the order in which they were asked for, so that threads with clients keep their processors. What is given up
/// before its turn is not done.
pub async fn compute_in_turn<T: Send + 'static>(
    length: Length,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    static SHORT: Semaphore = Semaphore::const_new(2);
    static LONG: Semaphore = Semaphore::const_new(1);
    let turns = match length {
        Length::Short => &SHORT,
        Length::Long => &LONG,
    };
    let turn = turns.acquire().await.ok()?;
    compute(move || {
        // Until it is done, whether or not somebody still waits for it.
        let _turn = turn;
        work()
    })
    .await
}

pin_project! {
    /// A task whose panic is noted. By hand, because an `async` block around a future has room for it twice, and every
    /// client has one of these.
    struct Noted<F> {
        name: &'static str,
        #[pin]
        future: F,
    }
}

impl<F: Future<Output = ()>> Future for Noted<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.project();
        let _note = PanicNote { name: &*task.name };
        task.future.poll(cx)
    }
}

/// Holds a reference to the name, which lies where a task is not looked at otherwise.
struct PanicNote<'t> {
    name: &'t &'static str,
}

impl Drop for PanicNote<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.name, "a task panicked; this is a bug in Poolhouse");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_work_is_done_one_by_one_and_short_work_does_not_wait_for_it() {
        use std::sync::mpsc;
        let (begun, has_begun) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let first = tokio::spawn(compute_in_turn(Length::Long, move || {
            begun.send(()).unwrap();
            may_go.recv().unwrap();
        }));
        while has_begun.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        // Nobody waits for it any more, and still it has its turn.
        let mut second = Box::pin(compute_in_turn(Length::Long, || 2));
        assert!(futures_pending(&mut second).await);
        assert_eq!(compute_in_turn(Length::Short, || 3).await, Some(3));
        assert!(futures_pending(&mut second).await);
        go.send(()).unwrap();
        assert_eq!(second.await, Some(2));
    }

    async fn futures_pending(future: &mut (impl Future + Unpin)) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_only() {
        let scope = Scope::new();
        let child = scope.child();
        child.spawn("panics", async { panic!("expected by the test") });
        child.spawn("waits", {
            let child = child.clone();
            async move { child.stopping().await }
        });
        tokio::task::yield_now().await;
        assert!(!child.is_stopping());
        scope.stop();
        child.ended().await;
        assert!(child.is_empty());
    }
}
