//! Reading: rows, sums, offsets.

use super::super::cover::cover;
use super::*;
use rusqlite::types::Value;
use rusqlite::{Row, params_from_iter};

const COLUMNS: &str = "SELECT e.id, e.status, e.client, e.metric, e.amount, e.time_ms, e.received_ms, e.reason, e.attempts, \
     e.original, s.topic, s.partition, e.position FROM events e JOIN sources s USING (source)";

/// Conditions and their values.
#[derive(Default)]
struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    fn add(&mut self, condition: &str, value: impl Into<Value>) {
        self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
        self.sql.push_str(condition);
        self.values.push(value.into());
    }
}

pub(super) fn offsets(connection: &Connection) -> Result<BTreeMap<Source, i64>, StoreError> {
    let mut select = connection.prepare_cached("SELECT topic_id, partition, next_offset FROM sources")?;
    let mut rows = select.query([])?;
    let mut offsets = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let topic_id: Vec<u8> = row.get(0)?;
        let topic_id = topic_id.try_into().map_err(|_| odd("a topic id"))?;
        offsets.insert(Source { topic_id, partition: row.get(1)? }, row.get(2)?);
    }
    Ok(offsets)
}

pub(super) fn totals(connection: &Connection) -> Result<Totals, StoreError> {
    let mut select =
        connection.prepare_cached("SELECT processed, rejected, failed, duplicates FROM totals")?;
    let count = |row: &Row<'_>, at| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)?.max(0) as u64);
    Ok(select.query_row([], |row| {
        Ok(Totals {
            processed: count(row, 0)?,
            rejected: count(row, 1)?,
            failed: count(row, 2)?,
            duplicates: count(row, 3)?,
        })
    })?)
}

pub(super) fn get(
    connection: &Connection,
    ids: &[EventId],
) -> Result<BTreeMap<EventId, StoredEvent>, StoreError> {
    let mut select = connection.prepare_cached(&format!("{COLUMNS} WHERE e.id = ?"))?;
    let mut found = BTreeMap::new();
    for id in ids {
        let mut rows = select.query([id.bytes().as_slice()])?;
        if let Some(row) = rows.next()? {
            found.insert(*id, event(row)?);
        }
    }
    Ok(found)
}

pub(super) fn list(connection: &Connection, filter: &EventFilter) -> Result<Vec<StoredEvent>, StoreError> {
    let mut conditions = Conditions::default();
    if let Some(client) = &filter.client {
        conditions.add("e.client = ?", client.clone());
    }
    match filter.status {
        // Nearly all are: an index of their own would cost more than leaving out the others.
        Some(Status::Processed) => conditions.add("+e.status = ?", i64::from(Status::Processed.number())),
        // The number is spelt out, so that the partial indexes are seen to apply.
        Some(status) => {
            conditions.add(&format!("e.status <> 0 AND e.status = {} AND ?", status.number()), 1);
        }
        None => {}
    }
    if let Some(from_ms) = filter.from_ms {
        conditions.add("e.time_ms >= ?", from_ms);
    }
    if let Some(to_ms) = filter.to_ms {
        conditions.add("e.time_ms < ?", to_ms);
    }
    let sql = format!("{COLUMNS}{} ORDER BY e.time_ms DESC, e.id DESC LIMIT ? OFFSET ?", conditions.sql);
    conditions.values.extend([i64::from(filter.limit).into(), i64::from(filter.skip).into()]);
    let mut select = connection.prepare_cached(&sql)?;
    let mut rows = select.query(params_from_iter(conditions.values))?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(event(row)?);
    }
    Ok(events)
}

pub(super) fn aggregate(
    connection: &mut Connection,
    query: &AggregateQuery,
) -> Result<BTreeMap<GroupKey, Bucket>, StoreError> {
    let mut groups: BTreeMap<GroupKey, Bucket> = BTreeMap::new();
    // One snapshot for all segments: an event must not count in two of them, or in none.
    let snapshot = connection.transaction()?;
    for segment in cover(query.from_ms, query.to_ms) {
        let mut conditions = Conditions::default();
        if let Some(client) = &query.client {
            conditions.add("client = ?", client.clone());
        }
        if let Some(metric) = &query.metric {
            conditions.add("metric = ?", metric.clone());
        }
        let (what, time) = match segment.level {
            Some(level) => {
                conditions.add("level = ?", i64::from(level.number()));
                ("count, sum, min, max FROM buckets", "start_ms")
            }
            None => {
                conditions.add("+status = ?", i64::from(Status::Processed.number()));
                ("1, amount, amount, amount FROM events", "time_ms")
            }
        };
        conditions.add(&format!("{time} >= ?"), segment.time.start);
        conditions.add(&format!("{time} < ?"), segment.time.end);
        let mut select =
            snapshot.prepare_cached(&format!("SELECT client, metric, {what}{}", conditions.sql))?;
        let mut rows = select.query(params_from_iter(conditions.values))?;
        while let Some(row) = rows.next()? {
            let name = |wanted: bool, at| {
                if wanted { row.get::<_, String>(at).map(Some) } else { Ok(None) }
            };
            let key = (name(query.by_client, 0)?, name(query.by_metric, 1)?);
            groups.entry(key).or_default().merge(&bucket(row, 2)?);
            if groups.len() > MAX_GROUPS {
                return Err(StoreError::TooManyGroups);
            }
        }
    }
    Ok(groups)
}

/// Count, sum, min and max from column `at` on.
pub(super) fn bucket(row: &Row<'_>, at: usize) -> Result<Bucket, StoreError> {
    let amount = |at| {
        let text = row.get_ref(at)?.as_str().map_err(|_| odd("an amount"))?;
        Amount::from_stored(text).ok_or_else(|| odd("an amount"))
    };
    let count: i64 = row.get(at)?;
    Ok(Bucket {
        count: u64::try_from(count).map_err(|_| odd("a count"))?,
        sum: amount(at + 1)?,
        min: Some(amount(at + 2)?),
        max: Some(amount(at + 3)?),
    })
}

fn event(row: &Row<'_>) -> Result<StoredEvent, StoreError> {
    let id: Vec<u8> = row.get(0)?;
    let amount: Option<String> = row.get(4)?;
    Ok(StoredEvent {
        id: EventId::from_bytes(&id).ok_or_else(|| odd("an event id"))?,
        status: Status::from_number(row.get(1)?).ok_or_else(|| odd("a status"))?,
        client: row.get(2)?,
        metric: row.get(3)?,
        amount: amount.map(|text| Amount::from_stored(&text).ok_or_else(|| odd("an amount"))).transpose()?,
        time_ms: row.get(5)?,
        received_ms: row.get(6)?,
        reason: row.get(7)?,
        attempts: row.get(8)?,
        original: row.get(9)?,
        topic: row.get(10)?,
        partition: row.get(11)?,
        offset: row.get(12)?,
    })
}
