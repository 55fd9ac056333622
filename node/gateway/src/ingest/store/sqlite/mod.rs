//! The embedded store: one SQLite file, a view of all partitions that belongs to one gateway alone.
//!
//! One thread writes, two read (WAL: readers see the last commit and never wait). The file is derived from the log and
//! can be deleted: commits are atomic but not flushed one by one (`synchronous = NORMAL`), and what a loss of power
//! takes off the end is read again, offsets being part of it. This module is the crate's only one that opens a file or
//! starts a thread (`ops/docs/decisions/ingest-stores.md`).

mod apply;
mod questions;
mod schema;
mod worker;

use super::*;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use worker::Worker;

/// Threads that answer questions.
const READERS: usize = 2;

/// A store in a file of its own.
pub struct SqliteStore {
    path: PathBuf,
    writer: Worker,
    readers: [Worker; READERS],
    next_reader: AtomicUsize,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the file, or makes it; its directory has to be there. `deadline` bounds each call.
    ///
    /// # Errors
    /// If the file cannot be opened, is another program's or a newer version's, or is damaged.
    pub fn open(path: impl AsRef<Path>, deadline: Duration) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let advice = |error: StoreError| {
            StoreError::Unavailable(format!(
                "{}: {error}; if the file is damaged, delete it: it is made again from the log",
                path.display()
            ))
        };
        let writer = connect(&path, OpenFlags::default(), schema::prepare).map_err(advice)?;
        let reader = || {
            connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX, |_| Ok(()))
                .and_then(|connection| Worker::start("ingest-reader", connection, deadline))
        };
        let readers = [reader().map_err(advice)?, reader().map_err(advice)?];
        let writer = Worker::start("ingest-writer", writer, deadline)?;
        Ok(SqliteStore { path, writer, readers, next_reader: AtomicUsize::new(0) })
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = self.next_reader.fetch_add(1, Ordering::Relaxed) % READERS;
        self.readers[reader].run(question).await
    }
}

fn connect(
    path: &Path,
    flags: OpenFlags,
    prepare: impl FnOnce(&mut Connection) -> rusqlite::Result<()>,
) -> Result<Connection, StoreError> {
    let mut connection = Connection::open_with_flags(path, flags)?;
    // Another process with the same file, which ought not to be.
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.set_prepared_statement_cache_capacity(64);
    prepare(&mut connection)?;
    Ok(connection)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::Unavailable(error.to_string())
    }
}

/// Something in the file that this program did not write so.
fn odd(what: &str) -> StoreError {
    StoreError::Unavailable(format!("the file holds {what} that this version did not write"))
}

#[async_trait]
impl Store for SqliteStore {
    fn shared(&self) -> bool {
        false
    }

    async fn offsets(&self) -> Result<BTreeMap<Source, i64>, StoreError> {
        self.ask(|connection| questions::offsets(connection)).await
    }

    async fn apply(&self, batches: Arc<[Batch]>) -> Result<(), StoreError> {
        self.writer.run(move |connection| apply::apply(connection, &batches)).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.writer
            .run(|connection| {
                connection.execute("UPDATE totals SET probes = probes + 1", [])?;
                Ok(())
            })
            .await
    }

    async fn get(&self, ids: Vec<EventId>) -> Result<BTreeMap<EventId, StoredEvent>, StoreError> {
        self.ask(move |connection| questions::get(connection, &ids)).await
    }

    async fn list(&self, filter: EventFilter) -> Result<Vec<StoredEvent>, StoreError> {
        self.ask(move |connection| questions::list(connection, &filter)).await
    }

    async fn aggregate(&self, query: AggregateQuery) -> Result<BTreeMap<GroupKey, Bucket>, StoreError> {
        self.ask(move |connection| questions::aggregate(connection, &query)).await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.ask(|connection| questions::totals(connection)).await
    }
}
