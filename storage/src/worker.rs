//! Blocking file work, off the async tasks: who needs it hands over a [`Worker`], a [`WorkerHost`]
//! drives it. The real host gives each worker an OS thread that parks while nothing is pending (a
//! wake-up costs about 55 µs, so one wake-up serves everything that gathered meanwhile); the simulated
//! host drives it from a task on simulated time, so that no thread exists there.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Does blocking work in batches.
pub trait Worker: Send + 'static {
    /// Short, for thread names and logs.
    fn name(&self) -> &'static str;

    /// Does everything that is pending now and returns. An error is fatal for the process: the host
    /// reports it and ends the process (an fsync error is never retried).
    fn run(&mut self) -> io::Result<()>;

    /// Called once when the host stops, after a last `run`.
    fn stop(&mut self) {}

    /// Besides being woken, run at least this often (`None`: only when woken).
    fn period(&self) -> Option<Duration> {
        None
    }
}

/// Wakes one worker; cheap, may be called under locks, coalesces.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Waker(Arc::new(wake))
    }

    pub fn wake(&self) {
        (self.0)()
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

/// Drives workers until it is dropped or stopped.
pub trait WorkerHost: Send + Sync + std::fmt::Debug {
    fn spawn(&self, worker: Box<dyn Worker>) -> Waker;
}

/// What the host does when a worker fails.
pub type OnFatal = Arc<dyn Fn(&str, &io::Error) + Send + Sync>;

/// One OS thread for each worker.
pub struct ThreadHost {
    on_fatal: OnFatal,
    stopping: Arc<AtomicBool>,
    threads: parking_lot::Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl std::fmt::Debug for ThreadHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ThreadHost")
    }
}

impl ThreadHost {
    /// `on_fatal` gets the worker's name and its error; the node's ends the process.
    pub fn new(on_fatal: OnFatal) -> Self {
        ThreadHost { on_fatal, stopping: Arc::new(AtomicBool::new(false)), threads: Default::default() }
    }

    /// Lets every worker run once more, then joins its thread.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for thread in self.threads.lock().drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for ThreadHost {
    fn drop(&mut self) {
        self.stop();
    }
}

impl WorkerHost for ThreadHost {
    fn spawn(&self, mut worker: Box<dyn Worker>) -> Waker {
        let pending = Arc::new(AtomicBool::new(true));
        let (stopping, on_fatal, seen) = (self.stopping.clone(), self.on_fatal.clone(), pending.clone());
        let thread = std::thread::Builder::new()
            .name(worker.name().to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                loop {
                    let stop = stopping.load(Ordering::SeqCst);
                    let woken = seen.swap(false, Ordering::AcqRel);
                    if !woken && !stop {
                        match worker.period() {
                            Some(period) => std::thread::park_timeout(period),
                            None => {
                                std::thread::park();
                                continue;
                            }
                        }
                    }
                    // A panic must not leave a node that looks alive and flushes nothing.
                    let run = std::panic::AssertUnwindSafe(|| worker.run());
                    let done = std::panic::catch_unwind(run);
                    if let Err(error) = done.unwrap_or_else(|_| Err(io::Error::other("the worker panicked")))
                    {
                        on_fatal(worker.name(), &error);
                        return;
                    }
                    if stop {
                        worker.stop();
                        return;
                    }
                }
            })
            .expect("a thread can be started");
        let handle = thread.thread().clone();
        self.threads.lock().push(thread);
        Waker::new(move || {
            // Only the first wake since the last run pays for the system call.
            if !pending.swap(true, Ordering::AcqRel) {
                handle.unpark();
            }
        })
    }
}

/// Drives workers on the calling thread, when it is told to: for tests, which decide what happens when.
#[derive(Default)]
pub struct ManualHost {
    workers: parking_lot::Mutex<Vec<Driven>>,
}

/// A worker, and whether it was woken.
type Driven = (Arc<AtomicBool>, Box<dyn Worker>);

impl std::fmt::Debug for ManualHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ManualHost")
    }
}

impl ManualHost {
    pub fn new() -> Self {
        ManualHost::default()
    }

    /// Runs the workers that were woken, in the order in which they came, until none is left. The first error
    /// ends it, as a real host ends the process.
    pub fn run_all(&self) -> io::Result<()> {
        while self.run_one()? {}
        Ok(())
    }

    /// Runs the first worker that was woken. `false`: there is none.
    pub fn run_one(&self) -> io::Result<bool> {
        let mut workers = self.workers.lock();
        match workers.iter_mut().find(|(pending, _)| pending.swap(false, Ordering::AcqRel)) {
            Some((_, worker)) => worker.run().map(|()| true),
            None => Ok(false),
        }
    }

    /// Runs only the workers of this name that were woken.
    pub fn run_named(&self, name: &str) -> io::Result<()> {
        for (pending, worker) in self.workers.lock().iter_mut() {
            while worker.name() == name && pending.swap(false, Ordering::AcqRel) {
                worker.run()?;
            }
        }
        Ok(())
    }

    /// Runs every worker that has a period, as if it had passed, and then all that were woken.
    pub fn pass_period(&self) -> io::Result<()> {
        for (pending, worker) in self.workers.lock().iter_mut() {
            if worker.period().is_some() {
                pending.store(true, Ordering::Release);
            }
        }
        self.run_all()
    }
}

impl WorkerHost for ManualHost {
    fn spawn(&self, worker: Box<dyn Worker>) -> Waker {
        let pending = Arc::new(AtomicBool::new(true));
        self.workers.lock().push((pending.clone(), worker));
        Waker::new(move || pending.store(true, Ordering::Release))
    }
}
