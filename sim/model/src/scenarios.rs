//! Named bounds.

use crate::state::Bounds;

/// Exhausted by the tests, in seconds.
pub const QUICK: &[&str] = &[
    "elections-two",
    "messages-two",
    "messages-epochs-two",
    "isr-two",
    "isr-join",
    "elr-late",
    "crash-two",
    "crash-isr-two",
    "damage-return",
    "flush-later-two",
    "flush-later-join-two",
    "flush-change",
    "flush-loosened",
    "min-isr-elr",
    "flush-token",
    "acks",
    "acks-join",
    "step-down",
    "delete",
    "delete-join",
    "delete-crash",
    "reassign",
    "reassign-back",
    "reassign-shrink",
    "unclean-two",
    "unclean-flush",
    "unclean-delete",
];

/// Exhausted by hand (or cut off after so many millions of states): a minute or two each.
pub const DEEP: &[&str] = &[
    "elections",
    "messages",
    "messages-epochs",
    "messages-late",
    "isr",
    "isr-epochs",
    "elr",
    "elr-shrink",
    "elr-commits",
    "elr-deep",
    "crash",
    "crash-isr",
    "crash-lead",
    "crash-truncate",
    "damage",
    "damage-elr",
    "damage-crash",
    "alters",
    "resend",
    "flush-later",
    "flush-later-join",
    "min-isr",
    "min-isr-up",
    "delete-crash-elr",
    "reassign-target",
    "acks-three",
    "unclean",
    "unclean-reset",
];

/// Far too wide to exhaust: for random walks.
pub const WIDE: &[&str] = &["wide", "wide-delete", "wide-reassign", "wide-later", "wide-unclean"];

const NOTHING: Bounds = Bounds::NOTHING;

/// # Panics
/// If there is no such scenario.
pub fn bounds(name: &str) -> Bounds {
    match name {
        // Clean leader changes, stale leaders, divergence.
        "elections" => Bounds { records: 3, leader_epochs: 3, preferred: 2, lag: 2, ..NOTHING },
        // The same with two messages under way per follower.
        "messages" => Bounds { records: 2, leader_epochs: 2, preferred: 1, in_flight: 2, lag: 1, ..NOTHING },
        "messages-epochs" => Bounds { leader_epochs: 3, preferred: 2, in_flight: 2, lag: 2, ..NOTHING },
        // An answer of an earlier epoch comes late.
        "messages-late" => Bounds {
            records: 1,
            leader_epochs: 3,
            preferred: 2,
            in_flight: 2,
            lag: 1,
            start_isr: 0b011,
            ..NOTHING
        },
        // Shrinking and growing across leader changes.
        "isr" => Bounds { records: 1, leader_epochs: 2, preferred: 1, alters: 2, lag: 1, ..NOTHING },
        "isr-epochs" => Bounds { records: 2, leader_epochs: 3, preferred: 2, alters: 2, lag: 1, ..NOTHING },
        // A replica asks to join a new leader that does not know yet what is committed.
        "isr-join" => {
            Bounds { leader_epochs: 2, preferred: 1, alters: 1, lag: 1, start_isr: 0b011, ..NOTHING }
        }
        // Fencing down to one and electing from the ELR.
        "elr" => {
            Bounds { records: 1, leader_epochs: 4, fences: 3, unfences: 1, alters: 1, lag: 2, ..NOTHING }
        }
        // A shrink below min.insync.replicas by the leader, then elections.
        "elr-shrink" => Bounds { leader_epochs: 3, fences: 1, unfences: 1, alters: 1, lag: 2, ..NOTHING },
        // From an ISR of two: an election from the ELR, and commits after it.
        "elr-commits" => Bounds {
            records: 2,
            leader_epochs: 3,
            fences: 2,
            unfences: 2,
            alters: 1,
            lag: 1,
            start_isr: 0b011,
            ..NOTHING
        },
        // Two fenced, one back and in the ISR again: the ELR must be empty.
        "elr-deep" => Bounds { leader_epochs: 1, fences: 2, unfences: 1, alters: 1, lag: 4, ..NOTHING },
        // The ISR has enough members again while somebody is still in the ELR.
        "elr-late" => Bounds { leader_epochs: 1, fences: 1, alters: 1, lag: 3, start_isr: 0b101, ..NOTHING },
        // Power loss, registration, return.
        "crash" => Bounds { records: 2, leader_epochs: 3, crashes: 1, unfences: 1, lag: 1, ..NOTHING },
        "crash-isr" => {
            Bounds { records: 1, leader_epochs: 2, crashes: 1, unfences: 1, alters: 1, lag: 1, ..NOTHING }
        }
        // A restarted broker leads again.
        "crash-lead" => Bounds {
            leader_epochs: 3,
            crashes: 1,
            unfences: 1,
            preferred: 1,
            alters: 1,
            lag: 1,
            start_isr: 0b011,
            ..NOTHING
        },
        // Power loss soon after a truncation.
        "crash-truncate" => {
            Bounds { records: 2, leader_epochs: 3, preferred: 1, crashes: 1, lag: 1, ..NOTHING }
        }
        // A replica loses flushed records.
        "damage" => Bounds { records: 1, leader_epochs: 3, damages: 1, alters: 1, lag: 2, ..NOTHING },
        "damage-elr" => {
            Bounds { records: 1, leader_epochs: 4, damages: 1, fences: 2, unfences: 1, lag: 1, ..NOTHING }
        }
        // Damage found after a power loss.
        "damage-crash" => Bounds {
            records: 1,
            leader_epochs: 3,
            damages: 1,
            crashes: 1,
            unfences: 1,
            alters: 1,
            lag: 2,
            ..NOTHING
        },
        // Damage and return: the ISR is left and joined again.
        "damage-return" => Bounds { leader_epochs: 2, damages: 1, alters: 1, lag: 1, ..NOTHING },
        // Lost answers, proposals sent again.
        "alters" => {
            Bounds { records: 1, leader_epochs: 1, alters: 3, fences: 1, unfences: 1, lag: 2, ..NOTHING }
        }
        "resend" => Bounds { records: 1, leader_epochs: 1, alters: 3, lag: 3, ..NOTHING },
        // A leader hears of a higher epoch before its image says so.
        "step-down" => Bounds {
            leader_epochs: 2,
            reassignments: 1,
            alters: 1,
            lag: 3,
            start_isr: 0b001,
            start_min_isr: 1,
            ..NOTHING
        },
        // Flush mode other than `ack`, one power loss.
        "flush-later" => Bounds {
            records: 1,
            leader_epochs: 2,
            crashes: 1,
            unfences: 1,
            alters: 2,
            lag: 1,
            flush_later: true,
            ..NOTHING
        },
        // The same while a replica joins.
        "flush-later-join" => Bounds {
            leader_epochs: 1,
            crashes: 1,
            unfences: 1,
            alters: 1,
            lag: 2,
            flush_later: true,
            start_isr: 0b011,
            ..NOTHING
        },
        // The flush mode is changed, towards `ack` (refused) …
        "flush-change" => Bounds {
            leader_epochs: 3,
            crashes: 1,
            unfences: 1,
            flush_changes: 1,
            lag: 1,
            start_isr: 0b011,
            start_replicas: 0b011,
            flush_later: true,
            ..NOTHING
        },
        // … and away from it.
        "flush-loosened" => Bounds { flush_later: false, alters: 1, ..bounds("flush-change") },
        // min.insync.replicas changes.
        "min-isr" => Bounds {
            records: 1,
            leader_epochs: 3,
            fences: 2,
            unfences: 1,
            min_isr_changes: 1,
            lag: 2,
            ..NOTHING
        },
        "min-isr-up" => Bounds {
            leader_epochs: 2,
            fences: 1,
            unfences: 1,
            alters: 1,
            min_isr_changes: 1,
            lag: 2,
            start_min_isr: 1,
            start_isr: 0b011,
            ..NOTHING
        },
        // An election from an ELR of two, where one is enough.
        "min-isr-elr" => Bounds {
            leader_epochs: 4,
            fences: 2,
            unfences: 1,
            min_isr_changes: 1,
            lag: 1,
            start_isr: 0b011,
            start_replicas: 0b011,
            ..NOTHING
        },
        // A flush overtaken by a truncation.
        "flush-token" => Bounds {
            records: 2,
            leader_epochs: 2,
            preferred: 1,
            slow_flush: true,
            lag: 1,
            start_isr: 0b011,
            start_replicas: 0b011,
            ..NOTHING
        },
        // Acknowledgements between requests.
        "acks" => Bounds {
            records: 2,
            leader_epochs: 2,
            preferred: 1,
            acks: true,
            in_flight: 2,
            lag: 1,
            start_isr: 0b011,
            start_replicas: 0b011,
            ..NOTHING
        },
        "acks-join" => Bounds {
            records: 2,
            leader_epochs: 2,
            preferred: 1,
            alters: 1,
            acks: true,
            lazy_flush: true,
            lag: 1,
            start_isr: 0b001,
            start_min_isr: 1,
            start_replicas: 0b011,
            ..NOTHING
        },
        "acks-three" => Bounds { start_isr: 0b111, start_replicas: 0b111, ..bounds("acks") },
        // Deletions across a leader change.
        "delete" => Bounds {
            records: 2,
            leader_epochs: 2,
            preferred: 1,
            deletions: 1,
            lag: 1,
            start_isr: 0b011,
            start_replicas: 0b011,
            ..NOTHING
        },
        // A replica outside the ISR finds its offset deleted, begins again, joins.
        "delete-join" => Bounds {
            records: 3,
            deletions: 1,
            alters: 1,
            start_isr: 0b001,
            start_min_isr: 1,
            start_replicas: 0b011,
            ..NOTHING
        },
        // The same, and loses power.
        "delete-crash" => Bounds {
            leader_epochs: 3,
            deletions: 1,
            alters: 1,
            crashes: 1,
            unfences: 1,
            lag: 2,
            start_isr: 0b001,
            start_min_isr: 1,
            start_replicas: 0b011,
            ..NOTHING
        },
        "delete-crash-elr" => Bounds {
            fences: 1,
            unfences: 2,
            start_isr: 0b011,
            start_replicas: 0b011,
            ..bounds("delete-crash")
        },
        // Replicas come and go.
        "reassign" => Bounds {
            leader_epochs: 2,
            reassignments: 2,
            alters: 1,
            lag: 2,
            start_isr: 0b011,
            start_replicas: 0b011,
            ..NOTHING
        },
        // A replica goes and comes back.
        "reassign-back" => {
            Bounds { leader_epochs: 2, reassignments: 2, alters: 1, lag: 2, start_isr: 0b011, ..NOTHING }
        }
        // Members of the ISR are to go.
        "reassign-shrink" => {
            Bounds { leader_epochs: 3, reassignments: 2, lag: 1, start_isr: 0b011, ..NOTHING }
        }
        // A reassignment to fewer replicas lowers what is needed.
        "reassign-target" => Bounds {
            leader_epochs: 3,
            reassignments: 1,
            targets: 1,
            fences: 1,
            unfences: 1,
            lag: 1,
            start_isr: 0b011,
            ..NOTHING
        },
        // An unclean election.
        "unclean" => {
            Bounds { records: 2, leader_epochs: 3, fences: 3, unfences: 1, uncleans: 1, lag: 1, ..NOTHING }
        }
        // An unclean leader that has not flushed what it knows to be visible.
        "unclean-flush" => Bounds {
            leader_epochs: 3,
            fences: 2,
            uncleans: 1,
            lazy_flush: true,
            lag: 2,
            start_isr: 0b001,
            start_min_isr: 1,
            start_replicas: 0b011,
            ..NOTHING
        },
        // A follower that has deleted more than the unclean leader ever had.
        "unclean-delete" => Bounds {
            records: 3,
            leader_epochs: 3,
            fences: 2,
            unfences: 1,
            uncleans: 1,
            deletions: 1,
            alters: 1,
            lag: 1,
            start_isr: 0b001,
            start_min_isr: 1,
            start_replicas: 0b011,
            ..NOTHING
        },
        // The same with two histories before it.
        "unclean-reset" => Bounds {
            records: 3,
            leader_epochs: 4,
            preferred: 1,
            fences: 2,
            unfences: 1,
            uncleans: 1,
            deletions: 1,
            alters: 1,
            lag: 1,
            start_isr: 0b011,
            start_min_isr: 1,
            ..NOTHING
        },
        // The same as above with two replicas, which is much quicker.
        "elections-two" => Bounds { start_isr: 0b011, start_replicas: 0b011, ..bounds("elections") },
        "messages-two" => Bounds { start_isr: 0b011, start_replicas: 0b011, ..bounds("messages") },
        "messages-epochs-two" => {
            Bounds { start_isr: 0b011, start_replicas: 0b011, ..bounds("messages-epochs") }
        }
        "isr-two" => {
            Bounds { start_min_isr: 1, start_isr: 0b011, start_replicas: 0b011, ..bounds("isr-epochs") }
        }
        "crash-two" => Bounds { start_isr: 0b011, start_replicas: 0b011, ..bounds("crash") },
        "crash-isr-two" => {
            Bounds { start_min_isr: 1, start_isr: 0b011, start_replicas: 0b011, ..bounds("crash-isr") }
        }
        "flush-later-two" => {
            Bounds { start_min_isr: 1, start_isr: 0b011, start_replicas: 0b011, ..bounds("flush-later") }
        }
        "unclean-two" => {
            Bounds { start_min_isr: 1, start_isr: 0b011, start_replicas: 0b011, ..bounds("unclean") }
        }
        "flush-later-join-two" => {
            Bounds { start_min_isr: 1, start_isr: 0b001, start_replicas: 0b011, ..bounds("flush-later-join") }
        }
        // Everything at once.
        "wide" => Bounds {
            records: 4,
            leader_epochs: 9,
            crashes: 2,
            fences: 4,
            unfences: 6,
            preferred: 2,
            alters: 6,
            damages: 1,
            min_isr_changes: 1,
            in_flight: 2,
            lag: 5,
            partial_loss: true,
            slow_flush: true,
            acks: true,
            ..NOTHING
        },
        "wide-delete" => Bounds { deletions: 3, ..bounds("wide") },
        "wide-reassign" => Bounds {
            deletions: 1,
            reassignments: 4,
            targets: 1,
            start_isr: 0b011,
            start_replicas: 0b011,
            ..bounds("wide")
        },
        "wide-later" => Bounds { flush_changes: 1, reassignments: 1, ..bounds("wide") },
        "wide-unclean" => Bounds { uncleans: 2, deletions: 2, damages: 0, ..bounds("wide") },
        _ => panic!("no scenario {name}"),
    }
}
