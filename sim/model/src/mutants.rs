//! Where each rule, turned off, is missed: some property fails in the scenario.

/// Rule, and the scenario in which to look for it.
pub const MUTANTS: &[(&str, &str)] = &[
    ("register_fences", "crash"),
    ("unclean_leaves_elr", "flush-later-two"),
    ("elr_filled_on_fence", "elr-commits"),
    ("elr_only_below_min_isr", "elr-commits"),
    ("alter_checks_partition_epoch", "alters"),
    ("alter_checks_unfenced", "alters"),
    ("alter_checks_broker_epoch", "flush-later-join-two"),
    ("elr_emptied_by_alter", "elr-late"),
    ("elr_emptied_by_min_isr", "min-isr"),
    ("elr_emptied_by_election", "min-isr-elr"),
    ("min_isr_moves_partition_epoch", "min-isr-up"),
    ("flush_never_tightened", "flush-change"),
    ("damage_leaves_isr", "damage"),
    ("damage_leaves_elr", "damage-elr"),
    ("damage_raises_epoch", "damage"),
    ("removal_raises_epoch", "reassign-back"),
    ("removal_leaves_enough", "reassign-shrink"),
    ("role_after_registration", "crash"),
    ("role_after_damage_report", "damage"),
    ("leads_once_per_epoch", "step-down"),
    ("acks_reset_each_epoch", "damage-return"),
    ("hw_starts_at_flushed", "unclean-flush"),
    ("counts_flushed_only", "crash"),
    ("hw_over_maximal_isr", "step-down"),
    ("removal_counts_once_committed", "isr"),
    ("hw_needs_min_isr", "elr"),
    ("hw_needs_current_broker_epoch", "flush-later-join-two"),
    ("pending_accumulates", "alters"),
    ("pending_until_higher_epoch", "alters"),
    ("rejection_keeps_pending", "resend"),
    ("fetch_checks_leader_epoch", "damage-return"),
    ("fetch_checks_log_start", "delete-join"),
    ("diverging_checks_epoch", "elections-two"),
    ("diverging_checks_end", "elections-two"),
    ("ack_needs_match", "acks"),
    ("ack_names_request", "acks"),
    ("grow_needs_hw", "isr-two"),
    ("grow_needs_epoch_start", "isr-join"),
    ("latest_waits_for_epoch_start", "elections-two"),
    ("deletes_below_hw", "delete"),
    ("truncates_by_epoch", "elections-two"),
    ("truncates_to_own_end", "elections-two"),
    ("unclean_excuses_truncation", "unclean-two"),
    ("answer_checks_leader_epoch", "messages-late"),
    ("answer_matches_request", "messages-two"),
    ("flush_checks_truncations", "flush-token"),
    ("emptied_log_keeps_epoch", "delete"),
    ("begins_again_after_unclean", "unclean-delete"),
    ("reset_counts_once_flushed", "delete-crash"),
];

/// Rules that are not missed as long as all others hold, and why they are there all the same.
pub const SECOND_LINES: &[(&str, &str)] = &[
    (
        "fetch_checks_broker_epoch",
        "what an old incarnation says is recorded under its broker epoch and so never counts; the refusal keeps it from \
         replacing what the new one has said",
    ),
    (
        "fetch_checks_empty_log",
        "a follower's empty log begins above the leader's only after an unclean election, and then it begins again by \
         itself; the leader need not rely on that",
    ),
];
