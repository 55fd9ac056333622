//! What must hold in every state (the invariants of HAZARDS.md that the model can see), and what must be reached in some,
//! so that a search that finds nothing has at least looked.

use crate::log::Log;
use crate::metadata::{BROKERS, NONE, has};
use crate::model::Replication;
use crate::replica::{Leader, Replica, Role};
use crate::state::{Body, State};
use stateright::Property;

type Condition = fn(&Replication, &State) -> bool;

const ALWAYS: [(&str, Condition); 14] = [
    ("I1 a current leader has all that was acknowledged", |_, s| {
        let current = |r: &&Replica| r.leader().is_some_and(|l| l.epoch >= s.agreed().leader_epoch);
        s.between_lineages() || s.replicas.iter().filter(current).all(|r| has_all(s, &r.log))
    }),
    ("I2 one value for each offset", |_, s| !s.two_values),
    ("I2 nothing below a high watermark is other than what was seen", |m, s| {
        m.bounds.uncleans > 0
            || s.replicas.iter().all(|r| {
                let end = r.high_watermark.min(s.committed.end());
                (r.log.start()..end).all(|o| r.log.get(o) == s.committed.get(o))
            })
    }),
    ("I5 no high watermark is above the true one", |m, s| {
        m.bounds.uncleans > 0 || s.replicas.iter().all(|r| r.high_watermark <= s.committed.end())
    }),
    ("I7 logs match", |_, s| {
        (0..BROKERS).all(|a| (a + 1..BROKERS).all(|b| s.replicas[a].log.matches(&s.replicas[b].log)))
    }),
    ("I8 ISR and ELR have all that was acknowledged, on disk", |_, s| {
        let agreed = s.agreed();
        let candidates = (0..BROKERS).filter(|&b| has(agreed.isr | agreed.elr, b));
        s.between_lineages()
            || candidates.map(|b| (b, &s.replicas[b])).all(|(b, r)| {
                if r.damaged && !has(agreed.reported, b) {
                    return true;
                }
                if agreed.flush_later {
                    // After a power loss it is live again once registered.
                    return !r.up || r.broker_epoch != agreed.broker_epoch[b] || has_all(s, &r.log);
                }
                has_all(s, &r.log) && has_all(s, &r.disk)
            })
    }),
    ("I8 somebody may have it", |m, s| {
        let bearable = m.bounds.damages == 0 && !s.agreed().flush_later;
        !bearable || s.agreed().isr | s.agreed().elr != 0
    }),
    ("I9 the maximal ISR is a superset of the ISR", |_, s| {
        let agreed = s.agreed();
        leaders(s).all(|(_, l)| l.epoch != agreed.leader_epoch || agreed.isr & !(l.isr | l.adds) == 0)
    }),
    ("I10 one leader in an epoch", |_, s| {
        let epochs: Vec<u8> = leaders(s).map(|(_, l)| l.epoch).collect();
        (0..epochs.len()).all(|i| !epochs[i + 1..].contains(&epochs[i]))
    }),
    ("I10 fenced brokers lead nothing and are in no ISR; the leader is in it", |_, s| {
        let m = s.agreed();
        let leads = m.leader == NONE || has(m.isr & !m.fenced, m.leader as usize);
        leads && m.isr & m.fenced == 0 && m.isr & m.elr == 0 && (m.isr | m.elr) & !m.replicas == 0
    }),
    ("I16 the end that clients are told never goes back", |m, s| {
        // In the current epoch: what earlier ones have shown is in it.
        let current = |r: &&Replica| r.leader().is_some_and(|l| l.epoch == s.agreed().leader_epoch);
        s.between_lineages()
            || s.replicas
                .iter()
                .filter(current)
                .all(|r| !m.tells_the_end(r) || r.high_watermark >= s.committed.end())
    }),
    ("log start ≤ high watermark ≤ log end", |_, s| {
        s.replicas.iter().all(|r| {
            r.log.start() <= r.high_watermark && r.high_watermark <= r.log.end() && r.flushed <= r.log.end()
        })
    }),
    ("a truncation below the own high watermark never happens", |_, s| !s.assertion),
    ("a diverging answer makes progress", |_, s| !s.no_progress),
];

const SOMETIMES: [(&str, Condition); 17] = [
    ("a leader elected from the ELR", |_, s| {
        // Alone in the ISR, too small for any other way.
        let m = s.agreed();
        m.leader != NONE && m.leader_epoch > 1 && m.elr != 0 && m.isr.count_ones() == 1
    }),
    ("commits in a later epoch", |_, s| {
        leaders(s).any(|(r, l)| l.epoch > 1 && r.high_watermark > l.start && s.committed.end() > 1)
    }),
    ("a restarted broker leads", |_, s| leaders(s).any(|(r, _)| r.broker_epoch > 1)),
    ("a damaged replica is back in the ISR, complete", |_, s| {
        let back = s.agreed().reported & s.agreed().isr;
        s.committed.end() > 0 && (0..BROKERS).any(|b| has(back, b) && has_all(s, &s.replicas[b].log))
    }),
    ("a diverging truncation", |_, s| {
        pending(s, |r, body| matches!(body, Body::Diverging { end, .. } if end < r.log.end()))
    }),
    ("a leader change with committed data", |_, s| {
        s.committed.end() > 0 && leaders(s).any(|(_, l)| l.epoch > 1)
    }),
    ("the ISR shrinks and grows again in one epoch", |m, s| {
        let agreed = s.agreed();
        agreed.leader_epoch == 1
            && agreed.partition_epoch >= 3
            && agreed.isr == m.bounds.start_isr
            && s.used.fences == 0
    }),
    ("two leaders act at once", |_, s| leaders(s).count() > 1),
    ("a request ends a leadership", |_, s| s.replicas.iter().any(|r| r.led_until != 0)),
    ("a follower below the log start begins again there", |_, s| {
        pending(s, |r, body| matches!(body, Body::StartAt { offset, deleted: true } if offset > r.log.end()))
    }),
    ("an emptied log gets a record again", |_, s| {
        s.declared_start > 0
            && s.committed.end() > s.declared_start
            && leaders(s).any(|(r, _)| r.log.start() > 0)
    }),
    ("a log is empty, and its records were deleted", |_, s| {
        s.replicas.iter().any(|r| r.log.is_empty() && r.log.start() > 0)
    }),
    ("a removed replica is in the ISR again", |m, s| {
        // Removed and added.
        let agreed = s.agreed();
        s.used.reassignments >= 2
            && agreed.isr & m.bounds.start_isr == m.bounds.start_isr
            && agreed.partition_epoch > 3
    }),
    ("a replica that is new is in the ISR", |m, s| s.agreed().isr & !m.bounds.start_replicas != 0),
    ("a flush ends after a truncation", |_, s| {
        s.replicas.iter().any(|r| r.flush.is_some_and(|flush| !flush.current))
    }),
    ("an acknowledgement that is older than the first match", |_, s| {
        s.net.iter().any(|message| {
            let ack = s.replicas[message.leader as usize % BROKERS].acks[message.follower as usize];
            matches!(message.body, Body::Ack { .. }) && ack.is_some_and(|ack| ack.matched > message.number)
        })
    }),
    ("commits after an unclean election", |_, s| {
        s.lineage > 0 && leaders(s).any(|(r, l)| l.epoch >= s.lineage && r.high_watermark > l.start)
    }),
];

/// It has everything acknowledged that was not declared deleted.
fn has_all(s: &State, log: &Log) -> bool {
    s.may_begin_anywhere() || log.start() <= s.declared_start && log.holds(&s.committed)
}

fn leaders(s: &State) -> impl Iterator<Item = (&Replica, &Leader)> {
    s.replicas.iter().filter_map(|replica| replica.leader().map(|leader| (replica, leader)))
}

/// An answer under way that its follower will heed.
fn pending(s: &State, is: impl Fn(&Replica, Body) -> bool) -> bool {
    s.net.iter().any(|message| {
        let replica = &s.replicas[message.follower as usize];
        let follows = replica.role == Role::Follower { epoch: message.leader_epoch };
        follows && message.is_answer() && replica.log.end() == message.next && is(replica, message.body)
    })
}

pub fn all() -> Vec<Property<Replication>> {
    let always = ALWAYS.iter().map(|(name, condition)| Property::always(name, *condition));
    let sometimes = SOMETIMES.iter().map(|(name, condition)| Property::sometimes(name, *condition));
    always.chain(sometimes).collect()
}

/// Names of what some scenario must reach.
pub fn to_reach() -> Vec<&'static str> {
    SOMETIMES.iter().map(|(name, _)| *name).collect()
}
