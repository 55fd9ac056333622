//! Reading: rows, sums, offsets.

use super::super::cover::cover;
use super::*;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

const COLUMNS: &str = "SELECT e.id, e.status, e.client, e.metric, e.amount::text, e.time_ms, e.received_ms, e.reason, \
     e.attempts, e.original, s.topic, s.partition, e.position \
     FROM strandline_ingest.events e JOIN strandline_ingest.sources s USING (source)";

/// Conditions and their values.
#[derive(Default)]
struct Conditions {
    sql: String,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Conditions {
    /// The place of a value, as the statement names it.
    fn value(&mut self, value: impl ToSql + Sync + Send + 'static) -> String {
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }

    fn add(&mut self, condition: &str) {
        self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
        self.sql.push_str(condition);
    }

    fn compare(&mut self, what: &str, value: impl ToSql + Sync + Send + 'static) {
        let place = self.value(value);
        self.add(&format!("{what} {place}"));
    }

    fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
    }
}

pub(super) async fn offsets(client: &Client) -> Result<BTreeMap<Source, i64>, StoreError> {
    let rows =
        client.query("SELECT topic_id, partition, next_offset FROM strandline_ingest.sources", &[]).await?;
    rows.iter()
        .map(|row| {
            let topic_id: &[u8] = row.try_get(0)?;
            let topic_id = topic_id.try_into().map_err(|_| odd("a topic id"))?;
            Ok((Source { topic_id, partition: row.try_get(1)? }, row.try_get(2)?))
        })
        .collect()
}

pub(super) async fn totals(client: &Client) -> Result<Totals, StoreError> {
    let row = client
        .query_one("SELECT processed, rejected, failed, duplicates FROM strandline_ingest.totals", &[])
        .await?;
    let count = |at: usize| Ok::<_, StoreError>(row.try_get::<_, i64>(at)?.max(0) as u64);
    Ok(Totals { processed: count(0)?, rejected: count(1)?, failed: count(2)?, duplicates: count(3)? })
}

pub(super) async fn get(
    client: &Client,
    ids: &[EventId],
) -> Result<BTreeMap<EventId, StoredEvent>, StoreError> {
    let ids: Vec<&[u8]> = ids.iter().map(|id| id.bytes().as_slice()).collect();
    let rows = client.query(&format!("{COLUMNS} WHERE e.id = ANY($1)"), &[&ids]).await?;
    rows.iter().map(|row| event(row).map(|event| (event.id, event))).collect()
}

pub(super) async fn list(client: &Client, filter: &EventFilter) -> Result<Vec<StoredEvent>, StoreError> {
    let mut conditions = Conditions::default();
    if let Some(name) = &filter.client {
        conditions.compare("e.client =", name.clone());
    }
    if let Some(status) = filter.status {
        // Spelt out, so that the partial indexes are seen to apply.
        conditions.add(&format!("e.status = {}", status.number()));
    }
    if let Some(from_ms) = filter.from_ms {
        conditions.compare("e.time_ms >=", from_ms);
    }
    if let Some(to_ms) = filter.to_ms {
        conditions.compare("e.time_ms <", to_ms);
    }
    let (limit, skip) = (conditions.value(i64::from(filter.limit)), conditions.value(i64::from(filter.skip)));
    let sql =
        format!("{COLUMNS}{} ORDER BY e.time_ms DESC, e.id DESC LIMIT {limit} OFFSET {skip}", conditions.sql);
    client.query(&sql, &conditions.values()).await?.iter().map(event).collect()
}

pub(super) async fn aggregate(
    client: &Client,
    query: &AggregateQuery,
) -> Result<BTreeMap<GroupKey, Bucket>, StoreError> {
    let segments = cover(query.from_ms, query.to_ms);
    if segments.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut filters = Conditions::default();
    if let Some(name) = &query.client {
        filters.compare("client =", name.clone());
    }
    if let Some(metric) = &query.metric {
        filters.compare("metric =", metric.clone());
    }
    let also = match filters.sql.strip_prefix(" WHERE ") {
        Some(conditions) => format!(" AND {conditions}"),
        None => String::new(),
    };
    // One statement, so that it is one snapshot: an event must not count in two segments, or in none.
    let mut parts = Vec::with_capacity(segments.len());
    for segment in segments {
        let (from, to) = (filters.value(segment.time.start), filters.value(segment.time.end));
        parts.push(match segment.level {
            Some(level) => format!(
                "SELECT client, metric, count, sum, min, max FROM strandline_ingest.buckets \
                 WHERE level = {} AND start_ms >= {from} AND start_ms < {to}{also}",
                level.number()
            ),
            None => format!(
                "SELECT client, metric, 1::bigint, amount, amount, amount FROM strandline_ingest.events \
                 WHERE status = {} AND time_ms >= {from} AND time_ms < {to}{also}",
                Status::Processed.number()
            ),
        });
    }
    let name = |wanted, column| if wanted { column } else { "NULL::text" };
    let sql = format!(
        "SELECT {} AS by_client, {} AS by_metric, sum(count)::bigint, sum(sum)::text, min(min)::text, max(max)::text \
         FROM ({}) AS parts (client, metric, count, sum, min, max) GROUP BY by_client, by_metric LIMIT {}",
        name(query.by_client, "client"),
        name(query.by_metric, "metric"),
        parts.join(" UNION ALL "),
        MAX_GROUPS + 1
    );
    let rows = client.query(&sql, &filters.values()).await?;
    if rows.len() > MAX_GROUPS {
        return Err(StoreError::TooManyGroups);
    }
    rows.iter()
        .map(|row| {
            let amount = |at: usize| Amount::from_stored(row.try_get(at)?).ok_or_else(|| odd("an amount"));
            let count: i64 = row.try_get(2)?;
            let bucket = Bucket {
                count: u64::try_from(count).map_err(|_| odd("a count"))?,
                sum: amount(3)?,
                min: Some(amount(4)?),
                max: Some(amount(5)?),
            };
            Ok(((row.try_get(0)?, row.try_get(1)?), bucket))
        })
        .collect()
}

fn event(row: &Row) -> Result<StoredEvent, StoreError> {
    let amount: Option<&str> = row.try_get(4)?;
    let attempts: Option<i32> = row.try_get(8)?;
    Ok(StoredEvent {
        id: EventId::from_bytes(row.try_get(0)?).ok_or_else(|| odd("an event id"))?,
        status: Status::from_number(row.try_get(1)?).ok_or_else(|| odd("a status"))?,
        client: row.try_get(2)?,
        metric: row.try_get(3)?,
        amount: amount.map(|text| Amount::from_stored(text).ok_or_else(|| odd("an amount"))).transpose()?,
        time_ms: row.try_get(5)?,
        received_ms: row.try_get(6)?,
        reason: row.try_get(7)?,
        attempts: attempts.map(|attempts| attempts.max(0) as u32),
        original: row.try_get(9)?,
        topic: row.try_get(10)?,
        partition: row.try_get(11)?,
        offset: row.try_get(12)?,
    })
}
