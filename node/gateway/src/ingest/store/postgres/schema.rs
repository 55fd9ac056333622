//! Tables and indexes, in a schema of their own.
//!
//! Amounts are `numeric`, which is exact and adds up exactly. Times are milliseconds since the Unix epoch. Status and
//! level are the numbers of [`Status`](super::Status) and [`Level`](super::super::bucket::Level).

use super::{StoreError, odd};
use tokio_postgres::Client;

/// Version of the tables that this code reads and writes.
const VERSION: i32 = 1;

/// Key of the advisory lock under which gateways make the tables, one at a time.
const LOCK: i64 = 0x5374_7261_6e64_6c69;

const TABLES: &str = "
CREATE SCHEMA strandline_ingest;
CREATE TABLE strandline_ingest.sources (
    source      serial PRIMARY KEY,
    topic_id    bytea NOT NULL,
    partition   integer NOT NULL,
    topic       text NOT NULL,
    next_offset bigint NOT NULL,
    UNIQUE (topic_id, partition)
);
CREATE TABLE strandline_ingest.events (
    id          bytea PRIMARY KEY,
    status      smallint NOT NULL,
    client      text COLLATE \"C\",
    metric      text COLLATE \"C\",
    amount      numeric,
    time_ms     bigint NOT NULL,
    received_ms bigint NOT NULL,
    source      integer NOT NULL REFERENCES strandline_ingest.sources,
    position    bigint NOT NULL,
    reason      text,
    attempts    integer,
    original    text
);
CREATE INDEX events_by_time ON strandline_ingest.events (time_ms, id);
CREATE INDEX events_by_client ON strandline_ingest.events (client, time_ms, id);
CREATE INDEX refused_by_time ON strandline_ingest.events (status, time_ms, id) WHERE status <> 0;
CREATE INDEX refused_by_client ON strandline_ingest.events (client, status, time_ms, id) WHERE status <> 0;
CREATE TABLE strandline_ingest.buckets (
    level    smallint NOT NULL,
    start_ms bigint NOT NULL,
    client   text COLLATE \"C\" NOT NULL,
    metric   text COLLATE \"C\" NOT NULL,
    count    bigint NOT NULL,
    sum      numeric NOT NULL,
    min      numeric NOT NULL,
    max      numeric NOT NULL,
    PRIMARY KEY (level, start_ms, client, metric)
);
CREATE INDEX buckets_by_client ON strandline_ingest.buckets (client, level, start_ms);
CREATE TABLE strandline_ingest.totals (
    version    integer NOT NULL,
    processed  bigint NOT NULL,
    rejected   bigint NOT NULL,
    failed     bigint NOT NULL,
    duplicates bigint NOT NULL,
    probes     bigint NOT NULL
);
";

/// Makes the tables where they are not there, and refuses those of another version.
pub(super) async fn prepare(client: &mut Client) -> Result<(), StoreError> {
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let row =
        transaction.query_one("SELECT to_regclass('strandline_ingest.totals') IS NOT NULL", &[]).await?;
    if !row.try_get::<_, bool>(0)? {
        transaction.batch_execute(TABLES).await?;
        transaction
            .execute("INSERT INTO strandline_ingest.totals VALUES ($1, 0, 0, 0, 0, 0)", &[&VERSION])
            .await?;
    }
    let row = transaction.query_one("SELECT version FROM strandline_ingest.totals", &[]).await?;
    if row.try_get::<_, i32>(0)? != VERSION {
        return Err(odd("tables of a version"));
    }
    transaction.commit().await?;
    Ok(())
}
