//! The rules of REPLICATION.md as switches: `true` means that the rule is in force. With all in force no property may
//! fail; each one turned off is a mutant, and some property must fail (`mutants.rs`, `RULES.md`).

macro_rules! rules {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        #[derive(Clone, Debug)]
        pub struct Rules {
            $($(#[$doc])* pub $name: bool,)+
        }

        impl Rules {
            pub const NAMES: &[&str] = &[$(stringify!($name)),+];

            pub fn all() -> Self {
                Rules { $($name: true),+ }
            }

            /// Turns one off.
            pub fn without(mut self, name: &str) -> Self {
                match name {
                    $(stringify!($name) => self.$name = false,)+
                    _ => panic!("there is no rule {name}"),
                }
                self
            }
        }
    };
}

rules! {
    // What is agreed: brokers.
    /// RegisterBroker does to partitions what FenceBroker does.
    register_fences,
    /// An unclean restart leaves the ELR where the flush mode is not `ack`.
    unclean_leaves_elr,
    /// Fencing puts a member of the ISR into the ELR where the ISR is then too small.
    elr_filled_on_fence,
    /// … and only there.
    elr_only_below_min_isr,

    // What is agreed: partitions.
    /// AlterPartition: the partition epoch is the one named.
    alter_checks_partition_epoch,
    /// AlterPartition: each member is unfenced.
    alter_checks_unfenced,
    /// AlterPartition: each member has the broker epoch that is named.
    alter_checks_broker_epoch,
    /// An AlterPartition that leaves the ISR large enough empties the ELR.
    elr_emptied_by_alter,
    /// A smaller minimum that the ISR has empties the ELR.
    elr_emptied_by_min_isr,
    /// An election from the ELR that leaves the ISR large enough empties the ELR.
    elr_emptied_by_election,
    /// A change of the minimum moves the partition epoch.
    min_isr_moves_partition_epoch,
    /// A flush mode may be loosened, never tightened.
    flush_never_tightened,
    /// ReplicaDamaged takes the replica out of the ISR.
    damage_leaves_isr,
    /// … and out of the ELR.
    damage_leaves_elr,
    /// ReplicaDamaged raises the leader epoch even if the damaged replica did not lead.
    damage_raises_epoch,
    /// SetReplicas that removes a replica raises the leader epoch.
    removal_raises_epoch,
    /// SetReplicas removes members of ISR or ELR only while enough of the ISR stay.
    removal_leaves_enough,

    // Roles.
    /// A restarted broker takes no role before its image holds its own registration.
    role_after_registration,
    /// A damaged replica takes no role until its image shows its report.
    role_after_damage_report,
    /// A leadership that ended is not taken up again in the same epoch.
    leads_once_per_epoch,

    // Leader.
    /// Acknowledgements start empty in each epoch.
    acks_reset_each_epoch,
    /// A new leader's high watermark is at most what its own disk holds.
    hw_starts_at_flushed,
    /// What counts is what is flushed, on the leader and on followers.
    counts_flushed_only,
    /// The high watermark waits for members that a pending proposal would add.
    hw_over_maximal_isr,
    /// … and for those that one would remove.
    removal_counts_once_committed,
    /// It does not move while the committed ISR is too small.
    hw_needs_min_isr,
    /// An acknowledgement counts under the broker epoch that is current.
    hw_needs_current_broker_epoch,
    /// Every pending proposal counts, not the last only.
    pending_accumulates,
    /// A proposal is pending until a higher partition epoch is seen: a leader never just forgets it.
    pending_until_higher_epoch,
    /// A rejection does not end what is pending.
    rejection_keeps_pending,
    /// A fetch of another leader epoch is refused.
    fetch_checks_leader_epoch,
    /// A fetch of another broker epoch is refused.
    fetch_checks_broker_epoch,
    /// A follower below the leader's log start begins again there.
    fetch_checks_log_start,
    /// An empty log matches only at the log start, or at or below the start of the epoch.
    fetch_checks_empty_log,
    /// Logs match only if the leader has the last epoch of the follower.
    diverging_checks_epoch,
    /// … and it reaches as far there.
    diverging_checks_end,
    /// An acknowledgement between requests counts only once a request has matched.
    ack_needs_match,
    /// … and only if the request that it names is not older than that.
    ack_names_request,
    /// Who joins the ISR has everything visible.
    grow_needs_hw,
    /// … and everything from before the epoch.
    grow_needs_epoch_start,
    /// A new leader says where the visible log ends only once its high watermark has its epoch's start.
    latest_waits_for_epoch_start,
    /// Only what is below the high watermark is deleted.
    deletes_below_hw,

    // Follower.
    /// A follower never truncates because of its high watermark.
    truncates_by_epoch,
    /// … to its own end of that epoch, if that is smaller.
    truncates_to_own_end,
    /// An unclean election excuses a truncation below the high watermark.
    unclean_excuses_truncation,
    /// An answer is used only if its leader epoch is the follower's.
    answer_checks_leader_epoch,
    /// … and if the log is still the one that the request described.
    answer_matches_request,
    /// A flush that began before a truncation says nothing of the log after it.
    flush_checks_truncations,
    /// A log emptied by deletion keeps the epoch of its last record.
    emptied_log_keeps_epoch,
    /// After an unclean election a log of which nothing is left begins again at 0: what it had deleted was of another
    /// history, perhaps.
    begins_again_after_unclean,
    /// A log begun again, or a log start raised, is acknowledged once that itself is on disk.
    reset_counts_once_flushed,
}
