//! The store: space, the journal, and what works in the background.

use super::table::*;
use crate::context::Context;
use strandline_metrics::Page;

pub(super) fn gather(context: &Context, page: &mut Page) {
    let store = &context.store;
    let reading = store.reading();
    if let Some(free) = reading.free_bytes {
        page.add(&FREE_BYTES, &[], free);
    }
    page.add(&RESERVED_BYTES, &[], reading.reserved_bytes);
    page.add(&LOG_BYTES, &[], reading.log_bytes);
    page.add(&TAIL_CACHE_BYTES, &[], reading.cached_bytes);
    page.add(&JOURNAL_PENDING_BYTES, &[], reading.journal_pending_bytes);
    page.add(&JOURNAL_FILES, &[], reading.journal_files);
    page.add(&JOURNAL_FILES_MAX, &[], reading.journal_files_max);
    page.add(&JOURNAL_FLUSH, &[], reading.flush);
    page.add(&JOURNAL_FLUSH_BYTES, &[], reading.group_bytes);
    page.add(&JOURNAL_ENTRIES, &[], reading.entries);

    let dedup = store.dedup_stats();
    page.add(&DEDUP_KEYS, &[], dedup.keys);
    page.add(&DEDUP_BYTES, &[], dedup.bytes);
    page.add(&DEDUP_FORGOTTEN, &[], dedup.forgotten_early);

    let compaction = store.compaction_stats();
    page.add(&COMPACTION_PASSES, &[&"completed"], compaction.passes);
    page.add(&COMPACTION_PASSES, &[&"abandoned"], compaction.abandoned.saturating_sub(compaction.errors));
    page.add(&COMPACTION_PASSES, &[&"failed"], compaction.errors);
    page.add(&COMPACTION_READ, &[], compaction.bytes_read);
    page.add(&COMPACTION_WRITTEN, &[], compaction.bytes_written);
    page.add(&COMPACTION_REMOVED, &[], compaction.records_removed);
    if let Some(at_ms) = compaction.last_pass_ms {
        page.add(&COMPACTION_LAST_PASS, &[], at_ms as f64 / 1000.0);
    }
}
