//! A thread with a connection: SQLite's calls block, and the runtime's threads must not.

use super::super::StoreError;
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Calls that wait for the thread; more wait for a place, each until its own deadline.
const QUEUE: usize = 64;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The sending end. The thread ends when it is dropped and what is queued is done.
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
    deadline: Duration,
}

impl Worker {
    pub(super) fn start(
        name: &str,
        mut connection: Connection,
        deadline: Duration,
    ) -> Result<Self, StoreError> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let run = move || {
            while let Some(job) = queue.blocking_recv() {
                // A job that panics answers nothing, which its caller sees; the connection rolls back.
                if catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
                    tracing::error!("a call of the ingest store panicked");
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        thread.map_err(|error| StoreError::Unavailable(format!("no thread for {name}: {error}")))?;
        Ok(Worker { jobs, deadline })
    }

    /// Runs a job on the thread. One that is given up at the deadline may still be carried out; every write here may be
    /// repeated, so that does no harm.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody waits any more.
            if !answer.is_closed() {
                let _ = answer.send(job(connection));
            }
        });
        let all = async {
            self.jobs.send(job).await.map_err(|_| StoreError::Unavailable("its thread has ended".into()))?;
            answered.await.map_err(|_| StoreError::Unavailable("the call panicked".into()))?
        };
        match tokio::time::timeout(self.deadline, all).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unavailable(format!("no answer within {:?}", self.deadline))),
        }
    }
}
