//! The transaction that writes batches.

use super::super::plan::{Plan, new_writes, plan};
use super::*;
use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};

pub(super) fn apply(connection: &mut Connection, batches: &[Batch]) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut sources = Vec::with_capacity(batches.len());
    let mut places = Vec::with_capacity(batches.len());
    for batch in batches {
        let (source, next) = source(&transaction, batch)?;
        if next < batch.from {
            return Err(StoreError::Behind { of: batch.source, next });
        }
        sources.push(source);
        places.push(next);
    }
    let mut known = BTreeMap::new();
    {
        let mut select = transaction.prepare_cached("SELECT status FROM events WHERE id = ?")?;
        for (_, write) in new_writes(batches, &places) {
            let status = select.query_row([write.id.bytes().as_slice()], |row| row.get(0)).optional()?;
            if let Some(number) = status {
                let status = Status::from_number(number).ok_or_else(|| odd("a status"))?;
                known.insert(write.id, status);
            }
        }
    }
    let plan = plan(batches, &places, known);
    write_rows(&transaction, &plan, &sources)?;
    write_buckets(&transaction, &plan)?;
    let added = plan.added;
    transaction
        .prepare_cached(
            "UPDATE totals SET processed = processed + ?, rejected = rejected + ?, failed = failed + ?, \
         duplicates = duplicates + ?",
        )?
        .execute(params![
            added.processed as i64,
            added.rejected as i64,
            added.failed as i64 - plan.revived as i64,
            added.duplicates as i64
        ])?;
    for ((batch, source), place) in batches.iter().zip(&sources).zip(&places) {
        transaction
            .prepare_cached("UPDATE sources SET next_offset = ? WHERE source = ?")?
            .execute(params![batch.next.max(*place), source])?;
    }
    transaction.commit()?;
    Ok(())
}

/// Number and next offset of a batch's source, which the batch begins if it is new.
fn source(transaction: &Transaction<'_>, batch: &Batch) -> Result<(i64, i64), StoreError> {
    let Source { topic_id, partition } = batch.source;
    let found = transaction
        .prepare_cached("SELECT source, next_offset FROM sources WHERE topic_id = ? AND partition = ?")?
        .query_row(params![topic_id.as_slice(), partition], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some(found) = found {
        return Ok(found);
    }
    transaction
        .prepare_cached("INSERT INTO sources (topic_id, partition, topic, next_offset) VALUES (?, ?, ?, ?)")?
        .execute(params![topic_id.as_slice(), partition, &*batch.topic, batch.from])?;
    Ok((transaction.last_insert_rowid(), batch.from))
}

fn write_rows(transaction: &Transaction<'_>, plan: &Plan<'_>, sources: &[i64]) -> Result<(), StoreError> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO events (id, status, client, metric, amount, time_ms, received_ms, source, position, reason, \
         attempts, original) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    for (batch, write) in &plan.insert {
        let (event, client, reason, attempts) = match &write.verdict {
            Verdict::Processed(event) => (Some(event), Some(&event.client), None, None),
            Verdict::Rejected { client, reason } => (None, client.as_ref(), Some(reason), None),
            Verdict::Failed { event, error, attempts } => {
                (Some(event), Some(&event.client), Some(error), Some(*attempts))
            }
        };
        insert.execute(params![
            write.id.bytes().as_slice(),
            write.verdict.status().number(),
            client,
            event.map(|event| &event.metric),
            event.map(|event| event.amount.to_string()),
            event.map_or(write.received_ms, |event| event.time_ms),
            write.received_ms,
            sources[*batch],
            write.offset,
            reason,
            attempts,
            write.kept_original(),
        ])?;
    }
    let mut revive = transaction.prepare_cached(
        "UPDATE events SET status = ?, reason = NULL, attempts = NULL, original = NULL WHERE id = ?",
    )?;
    for write in &plan.revive {
        revive.execute(params![write.verdict.status().number(), write.id.bytes().as_slice()])?;
    }
    Ok(())
}

fn write_buckets(transaction: &Transaction<'_>, plan: &Plan<'_>) -> Result<(), StoreError> {
    let mut select = transaction.prepare_cached(
        "SELECT count, sum, min, max FROM buckets WHERE level = ? AND start_ms = ? AND client = ? AND metric = ?",
    )?;
    let mut insert = transaction.prepare_cached("INSERT INTO buckets VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?;
    let mut update = transaction.prepare_cached(
        "UPDATE buckets SET count = ?, sum = ?, min = ?, max = ? \
         WHERE level = ? AND start_ms = ? AND client = ? AND metric = ?",
    )?;
    for (key, added) in &plan.buckets {
        let level = key.level.number();
        let found = select
            .query_row(params![level, key.start_ms, key.client, key.metric], |row| {
                Ok(questions::bucket(row, 0))
            })
            .optional()?
            .transpose()?;
        let mut bucket = added.clone();
        if let Some(found) = &found {
            bucket.merge(found);
        }
        let text = |amount: &Option<Amount>| amount.as_ref().map(Amount::to_string);
        let (count, sum) = (bucket.count as i64, bucket.sum.to_string());
        let (min, max) = (text(&bucket.min), text(&bucket.max));
        match found {
            Some(_) => {
                update.execute(params![count, sum, min, max, level, key.start_ms, key.client, key.metric])?
            }
            None => {
                insert.execute(params![level, key.start_ms, key.client, key.metric, count, sum, min, max])?
            }
        };
    }
    Ok(())
}
