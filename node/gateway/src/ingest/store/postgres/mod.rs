//! The shared store: one PostgreSQL database for all gateways, which share the work as a consumer group.
//!
//! One connection writes, one answers questions (pipelined); a connection that failed or missed a deadline is replaced
//! at the next call. The row of a source is locked for the transaction that moves its offset: a member that lost its
//! partitions and does not know it finds the offset moved, and its records passed over.
//!
//! Connections are not encrypted: put the database where the network is trusted, or on the same host.

mod apply;
mod questions;
mod schema;

use super::*;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, NoTls};

/// A store in a database that others share.
pub struct PostgresStore {
    config: Config,
    deadline: Duration,
    writer: Mutex<Option<Client>>,
    reader: Mutex<Option<Arc<Client>>>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        // The driver's own text says only "db error".
        let what = match error.as_db_error() {
            Some(error) => format!("{} ({})", error.message(), error.code().code()),
            None => match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
        };
        StoreError::Unavailable(what)
    }
}

/// Something in the database that this program did not write so.
fn odd(what: &str) -> StoreError {
    StoreError::Unavailable(format!("the database holds {what} that this version did not write"))
}

impl PostgresStore {
    /// A store in the database at `url` (`postgres://user:password@host:port/database`, or the keyword form); makes its
    /// tables if they are not there. `deadline` bounds each call.
    ///
    /// # Errors
    /// If the URL is wrong, the database cannot be reached, or its tables are another version's.
    pub async fn open(url: &str, deadline: Duration) -> Result<Self, StoreError> {
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            StoreError::Unavailable(format!(
                "the URL of the store cannot be used: {}",
                StoreError::from(error)
            ))
        })?;
        config.connect_timeout(deadline);
        config.application_name("strandline-ingest");
        let store = PostgresStore { config, deadline, writer: Mutex::default(), reader: Mutex::default() };
        store.write(async |client| schema::prepare(client).await).await?;
        Ok(store)
    }

    async fn connect(&self) -> Result<Client, StoreError> {
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the ingest store ended");
            }
        });
        let limit = self.deadline.as_millis();
        client.batch_execute(&format!("SET statement_timeout = {limit}; SET lock_timeout = {limit}")).await?;
        Ok(client)
    }

    /// Runs something on the writing connection, alone. After an error or at the deadline the connection is given up,
    /// and the server rolls back what was not committed.
    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let all = async {
            let mut slot = self.writer.lock().await;
            let mut client = match slot.take().filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => self.connect().await?,
            };
            let result = work(&mut client).await;
            if matches!(result, Ok(_) | Err(StoreError::Behind { .. })) {
                *slot = Some(client);
            }
            result
        };
        self.bounded(all).await
    }

    /// Runs something on the reading connection, beside others.
    async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let all = async {
            let client = {
                let mut slot = self.reader.lock().await;
                match slot.as_ref().filter(|client| !client.is_closed()) {
                    Some(client) => client.clone(),
                    None => slot.insert(Arc::new(self.connect().await?)).clone(),
                }
            };
            work(&client).await
        };
        self.bounded(all).await
    }

    async fn bounded<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match tokio::time::timeout(self.deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unavailable(format!("no answer within {:?}", self.deadline))),
        }
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn shared(&self) -> bool {
        true
    }

    async fn offsets(&self) -> Result<BTreeMap<Source, i64>, StoreError> {
        self.read(async |client| questions::offsets(client).await).await
    }

    async fn apply(&self, batches: Arc<[Batch]>) -> Result<(), StoreError> {
        self.write(async |client| apply::apply(client, &batches).await).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.write(async |client| {
            client.execute("UPDATE strandline_ingest.totals SET probes = probes + 1", &[]).await?;
            Ok(())
        })
        .await
    }

    async fn get(&self, ids: Vec<EventId>) -> Result<BTreeMap<EventId, StoredEvent>, StoreError> {
        self.read(async |client| questions::get(client, &ids).await).await
    }

    async fn list(&self, filter: EventFilter) -> Result<Vec<StoredEvent>, StoreError> {
        self.read(async |client| questions::list(client, &filter).await).await
    }

    async fn aggregate(&self, query: AggregateQuery) -> Result<BTreeMap<GroupKey, Bucket>, StoreError> {
        self.read(async |client| questions::aggregate(client, &query).await).await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.read(async |client| questions::totals(client).await).await
    }
}
