//! The metrics of a node, in the order of the page of documentation.

use strandline_metrics::Metric;

macro_rules! table {
    ($($name:ident = $metric:expr;)*) => {
        $(pub(super) const $name: Metric = $metric;)*
        /// All of them.
        pub const METRICS: &[&Metric] = &[$(&$name),*];
    };
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric::counter(name, labels, help)
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric::gauge(name, labels, help)
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric::histogram(name, labels, help)
}

const TP: &[&str] = &["topic", "partition"];

table! {
    // Clients.
    REQUESTS = counter("strandline_requests_total", &["protocol", "request"],
        "Requests that were answered; of the streams produce and fetch each request, of everything else each call");
    REQUEST_DURATION = histogram("strandline_request_duration_seconds", &["protocol", "request"],
        "From a produce or fetch request that was read to its answer; a fetch waits here for records");
    REQUEST_ERRORS = counter("strandline_request_errors_total", &["protocol", "error"],
        "Errors in answers, one for each partition, by their name in the protocol");
    PRODUCED_RECORDS = counter("strandline_produced_records_total", &["protocol"],
        "Records that were acknowledged to producers");
    PRODUCED_BYTES = counter("strandline_produced_bytes_total", &["protocol"],
        "Bytes of the batches that were acknowledged to producers, as they came");
    FETCHED_RECORDS = counter("strandline_fetched_records_total", &["protocol"],
        "Records in the batches that consumers were sent");
    FETCHED_BYTES = counter("strandline_fetched_bytes_total", &["protocol"],
        "Bytes of the batches that consumers were sent");
    THROTTLED = counter("strandline_throttled_requests_total", &["protocol", "request"],
        "Requests after which the client was held back by a quota");
    THROTTLED_SECONDS = counter("strandline_throttled_seconds_total", &["protocol", "request"],
        "For how long clients were held back by quotas");
    CONNECTIONS = gauge("strandline_connections", &["listener"], "Connections that are open");
    CONNECTIONS_MAX = gauge("strandline_connections_max", &["listener"], "Connections that may be open");
    CONNECTIONS_UNSERVED = counter("strandline_connections_unserved_total", &["listener", "reason"],
        "Connections that were closed unserved: refused for want of a place, too slow, or not accepted by the system");

    // Topics.
    TOPIC_PRODUCED_RECORDS = counter("strandline_topic_produced_records_total", &["topic"],
        "Records of producers that were appended while this node led the partition");
    TOPIC_PRODUCED_BYTES = counter("strandline_topic_produced_bytes_total", &["topic"],
        "Bytes of the batches that were appended while this node led the partition");
    TOPIC_FETCHED_RECORDS = counter("strandline_topic_fetched_records_total", &["topic"],
        "Records in the batches that consumers were sent");
    TOPIC_FETCHED_BYTES = counter("strandline_topic_fetched_bytes_total", &["topic"],
        "Bytes of the batches that consumers were sent");
    TOPIC_SIZE = gauge("strandline_topic_size_bytes", &["topic"], "Bytes of the topic's segments on this node");
    TOPIC_REPLICAS = gauge("strandline_topic_replicas", &["topic"], "Partitions of which this node has a replica");

    // Partitions.
    REPLICAS = gauge("strandline_replicas", &[], "Partitions of which this node has a replica");
    LED = gauge("strandline_leader_partitions", &[], "Partitions that this node leads");
    UNDER_REPLICATED = gauge("strandline_under_replicated_partitions", &[],
        "Partitions led here with a replica that is not in sync");
    AT_MIN_ISR = gauge("strandline_at_min_isr_partitions", &[],
        "Partitions led here that lack a replica and would refuse writes if they lost another");
    UNDER_MIN_ISR = gauge("strandline_under_min_isr_partitions", &[],
        "Partitions led here with fewer replicas in sync than min.insync.replicas: they refuse writes");
    OFFLINE = gauge("strandline_offline_partitions", &[],
        "Partitions of the whole cluster without a leader, as far as this node has heard");
    UNOPENED = gauge("strandline_unopened_partitions", &[], "Partitions of this node whose log cannot be opened");
    DAMAGED = gauge("strandline_damaged_partitions", &[], "Replicas here that were found damaged and wait for repair");
    DAMAGE_FOUND = counter("strandline_damage_found_total", &[],
        "Times that a log was found damaged, by a read, the scrub or a start");
    DAMAGE_REPAIRED = counter("strandline_damage_repaired_total", &[],
        "Times that damage was cut, to be fetched from the others again");
    ROLES_BEGUN = counter("strandline_roles_begun_total", &["role"],
        "Times that this node began to lead or to follow in a partition: elections, as they reach this node");
    FOLLOWER_LAG = gauge("strandline_follower_lag_records", &["follower"],
        "Records that a follower lacks on its disk, in all partitions led here");
    PARTITION_SIZE = gauge("strandline_partition_size_bytes", TP, "Bytes of the replica's segments");
    PARTITION_LOG_START = gauge("strandline_partition_log_start_offset", TP, "First offset that is kept");
    PARTITION_HIGH_WATERMARK = gauge("strandline_partition_high_watermark", TP,
        "Next offset that will become visible, as far as this replica knows");
    PARTITION_LOG_END = gauge("strandline_partition_log_end_offset", TP, "Next offset to be written");
    PARTITION_LEADS = gauge("strandline_partition_is_leader", TP, "1 where this node leads");
    PARTITION_LEADER_EPOCH = gauge("strandline_partition_leader_epoch", TP, "Leader epoch of the replica's role");
    PARTITION_ISR = gauge("strandline_partition_isr_replicas", TP, "Replicas in sync, told by the leader");
    PARTITION_FOLLOWER_LAG = gauge("strandline_partition_follower_lag_records", TP,
        "Records that the slowest follower lacks on its disk, told by the leader");

    // Groups.
    GROUP_LAG = gauge("strandline_group_lag_records", &["group", "topic"],
        "Records between a group's committed offsets and the ends of the partitions led here: sum over the nodes");
    GROUP_MEMBERS = gauge("strandline_group_members", &["group"], "Members of a group that this node coordinates");

    // The node, and the cluster as it sees it.
    NODE_INFO = gauge("strandline_node_info", &["node"], "1, for the id of this node");
    REGISTERED = gauge("strandline_node_registered", &[], "1 once this process has joined its cluster");
    BROKERS = gauge("strandline_brokers", &["state"], "Nodes of the cluster, as far as this one has heard");
    RAFT_TERM = gauge("strandline_raft_term", &[], "Term of the metadata");
    RAFT_IS_LEADER = gauge("strandline_raft_is_leader", &[], "1 where this node leads the metadata");
    RAFT_HAS_LEADER = gauge("strandline_raft_has_leader", &[], "1 while this node knows who leads the metadata");
    RAFT_VOTERS = gauge("strandline_raft_voters", &[], "Nodes with a vote on the metadata");
    RAFT_LAST_INDEX = gauge("strandline_raft_last_index", &[], "Last entry of this node's metadata log");
    RAFT_COMMITTED_INDEX = gauge("strandline_raft_committed_index", &[], "Last entry known here to be agreed");
    RAFT_APPLIED_INDEX = gauge("strandline_raft_applied_index", &[], "Last entry that was applied here");
    RAFT_SNAPSHOT_INDEX = gauge("strandline_raft_snapshot_index", &[], "Last entry of the newest snapshot; 0: none");
    RAFT_LOG_BYTES = gauge("strandline_raft_log_bytes", &[], "Bytes of the metadata log that are in use");

    // Storage.
    FREE_BYTES = gauge("strandline_storage_free_bytes", &[], "Bytes free on the data directory's file system");
    RESERVED_BYTES = gauge("strandline_storage_reserved_bytes", &[],
        "Free bytes below which the node is read-only (disk.reserved.bytes)");
    LOG_BYTES = gauge("strandline_storage_log_bytes", &[], "Bytes of all segments");
    TAIL_CACHE_BYTES = gauge("strandline_storage_tail_cache_bytes", &[], "Memory for the newest batches");
    JOURNAL_PENDING_BYTES = gauge("strandline_journal_pending_bytes", &[], "Bytes that wait to be durable");
    JOURNAL_FILES = gauge("strandline_journal_files", &[], "Journal files that a crash would need");
    JOURNAL_FILES_MAX = gauge("strandline_journal_files_max", &[], "Journal files that there may be");
    JOURNAL_FLUSH = histogram("strandline_journal_flush_duration_seconds", &[],
        "Writing and syncing (fdatasync) what had gathered in the journal");
    JOURNAL_FLUSH_BYTES = histogram("strandline_journal_flush_bytes", &[], "Bytes of one flush");
    JOURNAL_ENTRIES = counter("strandline_journal_entries_total", &[], "Entries that were flushed");
    DEDUP_KEYS = gauge("strandline_dedup_keys", &[], "Idempotency keys that are remembered");
    DEDUP_BYTES = gauge("strandline_dedup_memory_bytes", &[], "Memory for them");
    DEDUP_FORGOTTEN = counter("strandline_dedup_keys_forgotten_total", &[],
        "Idempotency keys that were forgotten within their window, for want of room (dedup.max.keys)");
    COMPACTION_PASSES = counter("strandline_compaction_passes_total", &["outcome"], "Passes over compacted logs");
    COMPACTION_READ = counter("strandline_compaction_read_bytes_total", &[], "Bytes that compaction has read");
    COMPACTION_WRITTEN = counter("strandline_compaction_written_bytes_total", &[], "Bytes that it has written");
    COMPACTION_REMOVED = counter("strandline_compaction_removed_records_total", &[], "Records that it has removed");
    COMPACTION_LAST_PASS = gauge("strandline_compaction_last_pass_timestamp_seconds", &[],
        "When the last pass came to its end");

    // The metrics themselves.
    OMITTED = gauge("strandline_metrics_omitted", &["kind"],
        "Topics, partitions and groups without series of their own, since there are more than http.metrics.max.partitions");
}
