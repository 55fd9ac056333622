//! Compaction case by case: what stays, and what goes.

mod common;
mod keyed;

use common::{NOW, Node, log_config, tp};
use keyed::{
    Keyed, LIMITS, Put, TOMBSTONES_MS, batch, config, files, headers, keyed, read_all, roll, rounds,
};
use strandline_record::{BatchHeader, Compression, LeaderEpoch, Offset, SharedBatchIter, decode_batch};
use strandline_storage::disk::{Disk, SimDisk};
use strandline_storage::{AppendError, CompactionConfig, LogConfig};

#[test]
fn of_each_key_the_last_record_stays_at_its_offset_and_the_old_files_go_with_the_next_checkpoint() {
    let mut it = keyed();
    rounds(&mut it, 0..5, 20);
    let (before, size) = (files(&it.node.disk, "log"), it.log().size_bytes());
    it.compact().unwrap();
    it.check();
    let compacted_to = it.log().compacted_to().get();
    assert!(compacted_to > 80, "all but the active segment: {compacted_to}");
    let below: Vec<_> = read_all(&it.log()).into_iter().filter(|seen| seen.offset < compacted_to).collect();
    assert_eq!(below.len(), 5);
    assert!(it.log().size_bytes() < size / 4);
    it.checkpoint().unwrap();
    let after = files(&it.node.disk, "log");
    assert_eq!(
        after.iter().filter(|name| before.contains(name)).count(),
        1,
        "only the active one: {after:?}"
    );
    let stats = it.node.store.compaction_stats();
    assert_eq!((stats.passes > 0, stats.errors, stats.last_pass_ms), (true, 0, Some(NOW)));
    assert_eq!(stats.records_removed, compacted_to as u64 - 5);
    assert!(stats.bytes_read > 0 && stats.bytes_written > 0);
    // And again from disk.
    let disk = it.node.disk.clone();
    disk.crash();
    let it = it.reopen(&disk);
    assert_eq!(it.log().compacted_to().get(), compacted_to, "it is not done again");
}

#[test]
fn a_read_from_inside_of_a_hole_goes_on_behind_it() {
    let mut it = keyed();
    rounds(&mut it, 0..5, 20);
    it.compact().unwrap();
    let log = it.log();
    let all = read_all(&log);
    for from in 0..log.log_end().get() {
        let mut position = Offset(from);
        let expected = all.iter().find(|seen| seen.offset >= from).expect("the last record stays");
        let found = loop {
            let read = log.read(position, 100, true, log.log_end()).unwrap();
            assert!(read.next_offset > position, "every read comes forward");
            let records = SharedBatchIter::new(read.bytes).flat_map(|item| {
                decode_batch(item.unwrap().1, LIMITS).unwrap().into_iter().map(Result::unwrap)
            });
            if let Some(record) = records.into_iter().find(|record| record.offset.get() >= from) {
                break record.offset.get();
            }
            position = read.next_offset;
        };
        assert_eq!(found, expected.offset);
    }
}

#[test]
fn runs_of_removed_batches_become_one_filler_and_epochs_keep_their_ends() {
    let mut it = keyed();
    for _ in 0..4 {
        rounds(&mut it, 0..5, 8);
        it.epoch += 1;
    }
    let log = it.log();
    let ends: Vec<_> = (0..5).map(|epoch| log.end_of_epoch(LeaderEpoch(epoch))).collect();
    for _ in 0..2 {
        it.compact().unwrap();
        assert_eq!((0..5).map(|epoch| log.end_of_epoch(LeaderEpoch(epoch))).collect::<Vec<_>>(), ends);
        it.check();
        rounds(&mut it, 0..5, 8);
    }
    it.compact().unwrap();
    it.checkpoint().unwrap();
    let headers = headers(&log);
    let fillers = headers.iter().filter(|header| header.is_filler()).count();
    // One between two of what is left, where an epoch begins, and where a segment does.
    let most = read_all(&log).len() + 5 + files(&it.node.disk, "log").len();
    assert!((5..=most).contains(&fillers), "{fillers} fillers of 200 batches");
    assert!(headers.len() < 60);
}

#[test]
fn batches_keep_codec_offsets_producer_and_timestamps_of_what_stays() {
    for codec in Compression::ALL {
        let mut it = keyed();
        it.append(&[(1, false), (2, false), (3, true), (4, false)], codec, Some(1)).unwrap();
        it.append(&[(1, false), (4, false)], codec, Some(1)).unwrap();
        roll(&mut it);
        let before = headers(&it.log());
        it.compact().unwrap();
        it.check();
        let after = headers(&it.log());
        assert_eq!((after[0].count(), before[0].count()), (2, 4), "{codec}");
        assert_eq!(after[0].compression(), codec);
        for (before, after) in before.iter().zip(&after).take(2) {
            assert_eq!(before.base_offset(), after.base_offset());
            assert_eq!(before.last_offset(), after.last_offset());
            assert_eq!(before.producer(), after.producer());
            assert_eq!(before.last_sequence(), after.last_sequence());
            assert_eq!(before.leader_epoch(), after.leader_epoch());
        }
        assert_eq!(after[0].delete_horizon(), Some(NOW + TOMBSTONES_MS));
        assert_eq!(after[1], before[1], "nothing of it went");
    }
}

#[test]
fn a_tombstone_goes_once_its_time_after_the_first_pass_over_it_is_over() {
    let mut it = keyed();
    let there = |it: &Keyed| read_all(&it.log()).iter().filter(|seen| seen.key == 1).count();
    it.append(&[(1, false), (2, false)], Compression::None, None).unwrap();
    it.append(&[(1, true)], Compression::None, None).unwrap();
    it.now += 10 * TOMBSTONES_MS;
    assert_eq!(there(&it), 2);
    for (waited, left) in [(0, 1), (TOMBSTONES_MS - 1, 1), (TOMBSTONES_MS, 0)] {
        let begun = NOW + 10 * TOMBSTONES_MS;
        it.now = begun + waited;
        roll(&mut it);
        it.compact().unwrap();
        it.check();
        assert_eq!(there(&it), left, "after {waited} ms");
    }
}

#[test]
fn a_tombstone_stays_until_every_replica_has_got_it() {
    let mut it = keyed();
    let log = it.log();
    for key in 0..4 {
        it.append(&[(key, false)], Compression::None, None).unwrap();
    }
    for key in 0..4 {
        it.append(&[(key, true)], Compression::None, None).unwrap();
    }
    for bound in [0, 0, 0, 6, 8] {
        roll(&mut it);
        it.now += TOMBSTONES_MS;
        log.set_retention_bound(log.flushed_end());
        log.set_tombstone_bound(Offset(bound));
        it.node.store.compact(it.now, 1 << 30, true);
        it.node.run();
        let left: Vec<i64> = read_all(&log).iter().map(|seen| seen.offset).filter(|at| *at < 8).collect();
        assert_eq!(left, (bound.max(4)..8).collect::<Vec<_>>(), "held by all up to {bound}");
    }
}

#[test]
fn nothing_from_the_high_watermark_on_is_touched() {
    let mut it = keyed();
    rounds(&mut it, 0..2, 100);
    let log = it.log();
    let before = headers(&log);
    for bound in [0, 1, 57, 120] {
        log.set_retention_bound(Offset(bound));
        it.node.store.compact(NOW, 1 << 30, true);
        it.node.run();
        assert!(log.compacted_to().get() <= bound);
        let of = |headers: &[BatchHeader]| {
            headers.iter().filter(|header| header.base_offset().get() >= bound).copied().collect::<Vec<_>>()
        };
        assert_eq!(of(&headers(&log)), of(&before));
    }
    assert!(log.compacted_to() > Offset::ZERO);
}

#[test]
fn producers_are_known_by_what_is_left_of_their_batches() {
    let mut it = keyed();
    for _ in 0..12 {
        for producer in 0..3 {
            it.append(&[(1, false), (2, false)], Compression::Lz4, Some(producer)).unwrap();
        }
    }
    roll(&mut it);
    roll(&mut it);
    it.compact().unwrap();
    let emptied = headers(&it.log()).into_iter().filter(|header| header.count() == 0 && !header.is_filler());
    assert!(emptied.count() >= 14, "the last five of each of three producers, of which one has records left");
    it.checkpoint().unwrap();
    let disk = it.node.disk.clone();
    disk.crash();
    // The state of the producers comes from the batches alone.
    for (path, _) in disk.files() {
        if path.extension().is_some_and(|extension| extension == "index") {
            disk.remove_file(&path).unwrap();
        }
    }
    let next: Vec<_> = it.producers.iter().map(|(id, (sequence, _, _))| (*id, *sequence)).collect();
    let it = it.reopen(&disk);
    for (id, sequence) in next {
        let puts = [Put { key: 1, value: Some(1) }];
        let gap = batch(&puts, Compression::None, Some((id, sequence + 1)), NOW);
        let refused = it.log().append_as_leader(&gap, LeaderEpoch(it.epoch), NOW);
        assert!(matches!(refused, Err(AppendError::OutOfOrderSequence { .. })), "{refused:?}");
        let next = batch(&puts, Compression::None, Some((id, sequence)), NOW);
        it.log().append_as_leader(&next, LeaderEpoch(it.epoch), NOW).unwrap();
    }
}

#[test]
fn records_without_a_key_are_refused_and_older_ones_are_kept() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    let keyless = |codec| {
        let mut builder = strandline_record::BatchBuilder::new(codec);
        builder.append(NOW, Some(b"key"), Some(b"value"), &[]);
        builder.append(NOW, None, Some(b"value"), &[]);
        builder.build()
    };
    let plain = LogConfig { compaction: None, ..config() };
    let log = node.store.open_log(tp(0), &plain).unwrap();
    for _ in 0..30 {
        log.append_as_leader(&keyless(Compression::None), LeaderEpoch(1), NOW).unwrap();
    }
    log.set_config(config());
    for codec in Compression::ALL {
        let end = log.log_end();
        match log.append_as_leader(&keyless(codec), LeaderEpoch(1), NOW) {
            Err(AppendError::Invalid(why)) => assert!(why.contains("record 1 has no key"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(log.log_end(), end);
    }
    node.run();
    log.set_retention_bound(log.log_end());
    node.store.compact(NOW, 1 << 30, true);
    node.run();
    let headers = headers(&log);
    assert_eq!(headers.len(), 30, "each has a record without a key");
    assert!(headers.iter().filter(|header| header.count() == 1).count() > 20);
}

#[test]
fn what_is_compressed_beyond_all_measure_is_refused() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    let log = node.store.open_log(tp(0), &config()).unwrap();
    let mut bomb = strandline_record::BatchBuilder::new(Compression::Zstd);
    bomb.append(NOW, Some(b"key"), Some(&vec![0; 65 << 20]), &[]);
    let refused = log.append_as_leader(&bomb.build(), LeaderEpoch(1), NOW);
    assert!(matches!(&refused, Err(AppendError::Invalid(why)) if why.contains("decompress")), "{refused:?}");
}

#[test]
fn a_tombstone_stays_while_a_batch_before_it_may_hold_what_it_deletes() {
    let mut it = keyed();
    let log = it.log();
    log.set_config(LogConfig { compaction: None, ..config() });
    let mut bomb = strandline_record::BatchBuilder::new(Compression::Zstd);
    bomb.append(NOW, Some(&[1]), Some(&vec![0; 65 << 20]), &[]);
    log.append_as_leader(&bomb.build(), LeaderEpoch(1), NOW).unwrap();
    log.set_config(config());
    it.append(&[(1, true)], Compression::None, None).unwrap();
    it.append(&[(2, true)], Compression::None, None).unwrap();
    for _ in 0..3 {
        roll(&mut it);
        it.now += 2 * TOMBSTONES_MS;
        it.compact().unwrap();
    }
    let headers = headers(&log);
    assert_eq!(
        (headers[0].base_offset(), headers[0].count()),
        (Offset(0), 1),
        "it cannot be opened and stays"
    );
    assert_eq!(headers[1].delete_horizon(), Some(NOW + 3 * TOMBSTONES_MS), "over, and yet it is there");
    assert_eq!((headers[1].base_offset(), headers[1].count()), (Offset(1), 1));
}

#[test]
fn lookups_by_time_find_what_is_left() {
    let mut it = keyed();
    rounds(&mut it, 0..5, 20);
    it.compact().unwrap();
    let log = it.log();
    let all = read_all(&log);
    for timestamp in NOW..NOW + 100 {
        let expected = all.iter().find(|seen| seen.timestamp >= timestamp);
        let found = log.offset_for_timestamp(timestamp).unwrap().map(|(offset, at)| (offset.get(), at));
        assert_eq!(found, expected.map(|seen| (seen.offset, seen.timestamp)));
    }
    let newest = all.iter().max_by_key(|seen| seen.timestamp).unwrap();
    assert_eq!(log.max_timestamp().unwrap(), Some((Offset(newest.offset), newest.timestamp)));
}

#[test]
fn retention_goes_on_where_both_policies_hold_and_the_scrub_reads_what_is_left() {
    let mut it = keyed();
    rounds(&mut it, 0..5, 30);
    it.compact().unwrap();
    rounds(&mut it, 0..5, 30);
    assert_eq!(it.node.store.scrub_some(&mut Default::default(), 1 << 30), vec![]);
    let log = it.log();
    log.set_config(LogConfig { retention_ms: Some(500), ..config() });
    log.set_retention_bound(log.flushed_end());
    it.node.store.maintain(NOW + 501);
    assert!(log.log_start() > Offset(150), "{}", log.log_start());
    it.check();
}

#[test]
fn records_are_left_alone_for_the_shortest_lag_and_waited_for_no_longer_than_the_longest() {
    let mut it = keyed();
    rounds(&mut it, 0..5, 20);
    let log = it.log();
    let compaction = CompactionConfig { min_lag_ms: 100, min_dirty_ppm: 0, ..CompactionConfig::default() };
    let lagging = LogConfig { compaction: Some(compaction), ..config() };
    let compacted_at = |it: &Keyed, config: &LogConfig, now| {
        log.set_config(config.clone());
        log.set_retention_bound(log.flushed_end());
        it.node.store.maintain(now);
        it.node.store.compact(now, 1 << 30, true);
        it.node.run();
        log.compacted_to()
    };
    assert_eq!(compacted_at(&it, &lagging, NOW + 99), Offset::ZERO);
    assert!(compacted_at(&it, &lagging, NOW + 100) > Offset::ZERO);
    // Not enough is dirty, until something has waited for too long: then the active segment is rolled, too.
    rounds(&mut it, 0..1, 2);
    let compaction = CompactionConfig { max_lag_ms: 1000, min_dirty_ppm: 1_000_000, ..compaction };
    let overdue = LogConfig { compaction: Some(compaction), ..config() };
    let before = log.compacted_to();
    assert_eq!(compacted_at(&it, &overdue, NOW + 1000), before);
    assert_eq!(compacted_at(&it, &overdue, NOW + 1001), log.log_end());
    it.check();
}

#[test]
fn logs_that_are_not_compacted_are_left_alone() {
    let node = Node::open(&SimDisk::new(1));
    let log = node.store.open_log(tp(0), &log_config()).unwrap();
    let puts = [Put { key: 1, value: Some(1) }];
    for _ in 0..100 {
        log.append_as_leader(&batch(&puts, Compression::None, None, NOW), LeaderEpoch(1), NOW).unwrap();
    }
    node.run();
    log.set_retention_bound(log.log_end());
    node.store.compact(NOW, 1 << 30, true);
    node.run();
    assert_eq!(node.store.compaction_stats(), Default::default());
    assert_eq!(read_all(&log).len(), 100);
}
