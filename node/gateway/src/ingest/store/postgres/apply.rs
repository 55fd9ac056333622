//! The transaction that writes batches: a handful of statements, each for all rows at once.

use super::super::bucket::{Bucket, BucketKey};
use super::super::plan::{Plan, new_writes, plan};
use super::*;
use tokio_postgres::Transaction;

pub(super) async fn apply(client: &mut Client, batches: &[Batch]) -> Result<(), StoreError> {
    let transaction = client.transaction().await?;
    // In one order, so that members that wait for each other do not wait for ever.
    let mut order: Vec<usize> = (0..batches.len()).collect();
    order.sort_by_key(|at| batches[*at].source);
    let mut sources = vec![0; batches.len()];
    let mut places = vec![0; batches.len()];
    for at in order {
        (sources[at], places[at]) = lock_source(&transaction, &batches[at]).await?;
        if places[at] < batches[at].from {
            return Err(StoreError::Behind { of: batches[at].source, next: places[at] });
        }
    }
    let ids: Vec<&[u8]> =
        new_writes(batches, &places).map(|(_, write)| write.id.bytes().as_slice()).collect();
    let mut known = BTreeMap::new();
    if !ids.is_empty() {
        let rows = transaction
            .query("SELECT id, status FROM strandline_ingest.events WHERE id = ANY($1)", &[&ids])
            .await?;
        for row in rows {
            let id = EventId::from_bytes(row.try_get(0)?).ok_or_else(|| odd("an event id"))?;
            known.insert(id, Status::from_number(row.try_get(1)?).ok_or_else(|| odd("a status"))?);
        }
    }
    let plan = plan(batches, &places, known);
    insert(&transaction, &plan, &sources).await?;
    if !plan.revive.is_empty() {
        let ids: Vec<&[u8]> = plan.revive.iter().map(|write| write.id.bytes().as_slice()).collect();
        transaction
            .execute(
                "UPDATE strandline_ingest.events SET status = $2, reason = NULL, attempts = NULL, original = NULL \
                 WHERE id = ANY($1)",
                &[&ids, &Status::Processed.number()],
            )
            .await?;
    }
    add_to_buckets(&transaction, &plan.buckets).await?;
    for (at, batch) in batches.iter().enumerate() {
        transaction
            .execute(
                "UPDATE strandline_ingest.sources SET next_offset = $2 WHERE source = $1",
                &[&sources[at], &batch.next.max(places[at])],
            )
            .await?;
    }
    let (added, int) = (plan.added, |count: u64| i64::try_from(count).unwrap_or(i64::MAX));
    // Last, because every member writes this row.
    transaction
        .execute(
            "UPDATE strandline_ingest.totals SET processed = processed + $1, rejected = rejected + $2, \
             failed = failed + $3, duplicates = duplicates + $4",
            &[
                &int(added.processed),
                &int(added.rejected),
                &(int(added.failed) - int(plan.revived)),
                &int(added.duplicates),
            ],
        )
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// Number and next offset of a batch's source, which the batch begins if it is new; nobody else moves it before the
/// transaction ends.
async fn lock_source(transaction: &Transaction<'_>, batch: &Batch) -> Result<(i32, i64), StoreError> {
    let Source { topic_id, partition } = batch.source;
    let lock = "SELECT source, next_offset FROM strandline_ingest.sources WHERE topic_id = $1 AND partition = $2 \
                FOR UPDATE";
    let mut row = transaction.query_opt(lock, &[&topic_id.as_slice(), &partition]).await?;
    if row.is_none() {
        transaction
            .execute(
                "INSERT INTO strandline_ingest.sources (topic_id, partition, topic, next_offset) \
                 VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                &[&topic_id.as_slice(), &partition, &&*batch.topic, &batch.from],
            )
            .await?;
        row = transaction.query_opt(lock, &[&topic_id.as_slice(), &partition]).await?;
    }
    let row = row.ok_or_else(|| odd("a source that vanishes"))?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

async fn insert(transaction: &Transaction<'_>, plan: &Plan<'_>, sources: &[i32]) -> Result<(), StoreError> {
    if plan.insert.is_empty() {
        return Ok(());
    }
    let writes = || plan.insert.iter().map(|(_, write)| *write);
    let events = || {
        writes().map(|write| match &write.verdict {
            Verdict::Processed(event) | Verdict::Failed { event, .. } => Some(event),
            Verdict::Rejected { .. } => None,
        })
    };
    let ids: Vec<&[u8]> = writes().map(|write| write.id.bytes().as_slice()).collect();
    let statuses: Vec<i16> = writes().map(|write| write.verdict.status().number()).collect();
    let clients: Vec<Option<&str>> = writes()
        .map(|write| match &write.verdict {
            Verdict::Processed(event) | Verdict::Failed { event, .. } => Some(event.client.as_str()),
            Verdict::Rejected { client, .. } => client.as_deref(),
        })
        .collect();
    let metrics: Vec<Option<&str>> = events().map(|event| event.map(|event| event.metric.as_str())).collect();
    let amounts: Vec<Option<String>> =
        events().map(|event| event.map(|event| event.amount.to_string())).collect();
    let times: Vec<i64> = writes()
        .zip(events())
        .map(|(write, event)| event.map_or(write.received_ms, |event| event.time_ms))
        .collect();
    let received: Vec<i64> = writes().map(|write| write.received_ms).collect();
    let from: Vec<i32> = plan.insert.iter().map(|(batch, _)| sources[*batch]).collect();
    let positions: Vec<i64> = writes().map(|write| write.offset).collect();
    let reasons: Vec<Option<&str>> = writes()
        .map(|write| match &write.verdict {
            Verdict::Processed(_) => None,
            Verdict::Rejected { reason, .. } => Some(reason.as_str()),
            Verdict::Failed { error, .. } => Some(error.as_str()),
        })
        .collect();
    let attempts: Vec<Option<i32>> = writes()
        .map(|write| match &write.verdict {
            Verdict::Failed { attempts, .. } => Some(i32::try_from(*attempts).unwrap_or(i32::MAX)),
            _ => None,
        })
        .collect();
    let originals: Vec<Option<&str>> = writes().map(Write::kept_original).collect();
    transaction
        .execute(
            "INSERT INTO strandline_ingest.events (id, status, client, metric, amount, time_ms, received_ms, source, \
             position, reason, attempts, original) \
             SELECT id, status, client, metric, amount::numeric, time_ms, received_ms, source, position, reason, \
             attempts, original \
             FROM unnest($1::bytea[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::bigint[], \
             $7::bigint[], $8::integer[], $9::bigint[], $10::text[], $11::integer[], $12::text[]) \
             AS new (id, status, client, metric, amount, time_ms, received_ms, source, position, reason, attempts, \
             original)",
            &[
                &ids, &statuses, &clients, &metrics, &amounts, &times, &received, &from, &positions, &reasons,
                &attempts, &originals,
            ],
        )
        .await?;
    Ok(())
}

async fn add_to_buckets(
    transaction: &Transaction<'_>,
    buckets: &BTreeMap<BucketKey, Bucket>,
) -> Result<(), StoreError> {
    if buckets.is_empty() {
        return Ok(());
    }
    let text = |amount: &Option<Amount>| amount.as_ref().map(Amount::to_string);
    let levels: Vec<i16> = buckets.keys().map(|key| key.level.number()).collect();
    let starts: Vec<i64> = buckets.keys().map(|key| key.start_ms).collect();
    let clients: Vec<&str> = buckets.keys().map(|key| key.client.as_str()).collect();
    let metrics: Vec<&str> = buckets.keys().map(|key| key.metric.as_str()).collect();
    let counts: Vec<i64> = buckets.values().map(|bucket| bucket.count as i64).collect();
    let sums: Vec<String> = buckets.values().map(|bucket| bucket.sum.to_string()).collect();
    let least: Vec<Option<String>> = buckets.values().map(|bucket| text(&bucket.min)).collect();
    let greatest: Vec<Option<String>> = buckets.values().map(|bucket| text(&bucket.max)).collect();
    // Rows are locked in the order of the keys: transactions of other members take them in the same.
    transaction
        .execute(
            "INSERT INTO strandline_ingest.buckets AS old (level, start_ms, client, metric, count, sum, min, max) \
             SELECT level, start_ms, client, metric, count, sum::numeric, min::numeric, max::numeric \
             FROM unnest($1::smallint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], \
             $8::text[]) AS new (level, start_ms, client, metric, count, sum, min, max) \
             ON CONFLICT (level, start_ms, client, metric) DO UPDATE SET count = old.count + excluded.count, \
             sum = old.sum + excluded.sum, min = least(old.min, excluded.min), max = greatest(old.max, excluded.max)",
            &[&levels, &starts, &clients, &metrics, &counts, &sums, &least, &greatest],
        )
        .await?;
    Ok(())
}
