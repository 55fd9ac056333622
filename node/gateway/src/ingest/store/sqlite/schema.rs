//! Tables and indexes.
//!
//! Amounts are text, in plain decimal: SQLite has no exact decimals, and adds none of these up itself. Times are
//! milliseconds since the Unix epoch. Status and level are the numbers of [`Status`](super::Status) and
//! [`Level`](super::super::bucket::Level).

use rusqlite::Connection;

/// `user_version` of files that this code reads and writes.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE sources (
    source      INTEGER PRIMARY KEY,
    topic_id    BLOB NOT NULL,
    partition   INTEGER NOT NULL,
    topic       TEXT NOT NULL,
    next_offset INTEGER NOT NULL,
    UNIQUE (topic_id, partition)
) STRICT;

CREATE TABLE events (
    id          BLOB NOT NULL UNIQUE,
    status      INTEGER NOT NULL,
    client      TEXT,
    metric      TEXT,
    amount      TEXT,
    time_ms     INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    source      INTEGER NOT NULL REFERENCES sources,
    position    INTEGER NOT NULL,
    reason      TEXT,
    attempts    INTEGER,
    original    TEXT
) STRICT;
CREATE INDEX events_by_time ON events (time_ms, id);
CREATE INDEX events_by_client ON events (client, time_ms, id);
CREATE INDEX refused_by_time ON events (status, time_ms, id) WHERE status <> 0;
CREATE INDEX refused_by_client ON events (client, status, time_ms, id) WHERE status <> 0;

CREATE TABLE buckets (
    level    INTEGER NOT NULL,
    start_ms INTEGER NOT NULL,
    client   TEXT NOT NULL,
    metric   TEXT NOT NULL,
    count    INTEGER NOT NULL,
    sum      TEXT NOT NULL,
    min      TEXT NOT NULL,
    max      TEXT NOT NULL,
    PRIMARY KEY (level, start_ms, client, metric)
) STRICT, WITHOUT ROWID;
CREATE INDEX buckets_by_client ON buckets (client, level, start_ms);

CREATE TABLE totals (
    processed  INTEGER NOT NULL,
    rejected   INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    duplicates INTEGER NOT NULL,
    probes     INTEGER NOT NULL
) STRICT;
INSERT INTO totals VALUES (0, 0, 0, 0, 0);
";

/// Makes the tables of a new file, and refuses a file of another kind.
pub(super) fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Pages, negative: KiB.
    connection.pragma_update(None, "cache_size", -64 * 1024)?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (version, tables) {
        (VERSION, _) => {}
        (0, 0) => {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        _ => {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_MISMATCH),
                Some(format!("it is not an ingest store of version {VERSION} (it says {version})")),
            ));
        }
    }
    transaction.commit()
}
