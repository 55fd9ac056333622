//! Made-up histories and observations for the oracle's own tests: an [`Invariant`] under a ledger of its own, and
//! short words for what may happen.

use super::ledger::{Keeper, Ledger, Shared};
use super::{Check, Invariant, Observation};
use crate::history::{Acks, Attempt, Event, Outcome, Session, TopicFacts, Tp, What};
use crate::observe::{
    BrokerView, GroupView, ImageView, Logs, NodeView, PartitionView, RaftView, ReplicaView, Role, Unread,
};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const READER: Session = Session(100);
pub const WRITER: Session = Session(200);

pub fn tp() -> Tp {
    Tp::new("t", 0)
}

pub fn facts() -> TopicFacts {
    TopicFacts {
        partitions: 1,
        replication: 3,
        min_insync: 2,
        flush_ack: true,
        retention: false,
        unclean_elections: false,
    }
}

/// Steps of one millisecond: change `nodes`, then [`Bench::step`]; or let clients do things.
pub struct Bench {
    keeper: Keeper,
    under_test: Box<dyn Invariant>,
    pub ledger: Shared,
    pub now_us: u64,
    pub nodes: BTreeMap<u64, NodeView>,
    pub image: ImageView,
    logs: BTreeMap<u64, BTreeMap<Tp, Result<Vec<u8>, Unread>>>,
}

impl Bench {
    /// Three nodes; 1 leads `t-0` in epoch 1, everybody is in its ISR.
    pub fn new(make: impl FnOnce(Shared) -> Box<dyn Invariant>) -> Bench {
        Bench::of(facts(), make)
    }

    pub fn of(facts: TopicFacts, make: impl FnOnce(Shared) -> Box<dyn Invariant>) -> Bench {
        let ledger: Shared = std::rc::Rc::new(std::cell::RefCell::new(Ledger::default()));
        let broker = |id| (id, BrokerView { epoch: 1, fenced: false });
        let agreed = PartitionView {
            replicas: vec![1, 2, 3],
            leader: Some(1),
            leader_epoch: 1,
            partition_epoch: 1,
            isr: [1, 2, 3].into(),
            elr: [].into(),
            unclean_epoch: 0,
        };
        let image = ImageView {
            index: 10,
            brokers: (1..=3).map(broker).collect(),
            partitions: [(tp(), Arc::new(agreed))].into(),
            ..ImageView::default()
        };
        let mut bench = Bench {
            keeper: Keeper(ledger.clone()),
            under_test: make(ledger.clone()),
            ledger,
            now_us: 0,
            nodes: BTreeMap::new(),
            image,
            logs: BTreeMap::new(),
        };
        for node in 1..=3 {
            bench.start(node, 1);
        }
        bench.lead(1, 1);
        bench.happen(What::Topic { topic: "t".into(), settings: facts }).unwrap();
        bench.step().unwrap();
        bench
    }

    pub fn start(&mut self, node: u64, life: u64) {
        let replica = ReplicaView {
            role: Role::Follower { leader: 1, epoch: 1 },
            log_start: 0,
            log_end: 0,
            flushed_end: 0,
            high_watermark: 0,
            maximal_isr: Vec::new(),
            damaged: false,
        };
        let view = NodeView {
            node,
            life,
            broker_epoch: Some(self.image.brokers[&node].epoch),
            // Nodes 1 to 3.
            raft: RaftView { voters: 0b1110, ..RaftView::default() },
            image: Arc::new(self.image.clone()),
            replicas: [(tp(), replica)].into(),
            logs: Logs::None,
        };
        self.nodes.insert(node, view);
    }

    pub fn replica(&mut self, node: u64) -> &mut ReplicaView {
        self.nodes.get_mut(&node).unwrap().replicas.get_mut(&tp()).unwrap()
    }

    pub fn lead(&mut self, node: u64, epoch: i32) {
        let replica = self.replica(node);
        replica.role = Role::Leader { epoch };
        replica.maximal_isr = vec![1, 2, 3];
    }

    /// Everybody follows `leader` in `epoch`, and it is agreed.
    pub fn elect(&mut self, leader: u64, epoch: i32) {
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.replica(node).role = Role::Follower { leader, epoch };
        }
        self.lead(leader, epoch);
        self.agree(|agreed| (agreed.leader, agreed.leader_epoch) = (Some(leader), epoch));
    }

    /// A new agreed state of the partition, which all nodes see.
    pub fn agree(&mut self, change: impl FnOnce(&mut PartitionView)) {
        let mut agreed = PartitionView::clone(&self.image.partitions[&tp()]);
        change(&mut agreed);
        agreed.partition_epoch += 1;
        self.image.partitions.insert(tp(), Arc::new(agreed));
        self.publish();
    }

    /// Everybody has the image as it is now, one index further.
    pub fn publish(&mut self) {
        self.image.index += 1;
        let image = Arc::new(self.image.clone());
        self.nodes.values_mut().for_each(|view| view.image = image.clone());
    }

    pub fn put_group(&mut self, group: &str, generation: i32, members: &[(&str, &[u8])]) {
        let members =
            members.iter().map(|(id, assignment)| (Arc::from(*id), Arc::from(*assignment))).collect();
        self.image.groups.insert(group.into(), GroupView { generation, assigned: true, members });
        self.publish();
    }

    /// Log end and flushed end of these nodes.
    pub fn ends(&mut self, ends: &[(u64, i64)]) {
        for (node, end) in ends {
            let replica = self.replica(*node);
            (replica.log_end, replica.flushed_end) = (*end, *end);
        }
    }

    /// These records are on every disk, visible, and the step is seen.
    pub fn commit_to(&mut self, end: i64) {
        self.ends(&[(1, end), (2, end), (3, end)]);
        (1..=3).for_each(|node| self.replica(node).high_watermark = end);
        self.step().unwrap();
    }

    pub fn step(&mut self) -> Check {
        self.now_us += 1000;
        let seen = Observation { now_us: self.now_us, nodes: &self.nodes };
        self.keeper.observe(&seen)?;
        self.under_test.observe(&seen)
    }

    pub fn happen(&mut self, what: What) -> Check {
        let event = Event { at_us: self.now_us, what };
        self.keeper.event(&event)?;
        self.under_test.event(&event)
    }

    pub fn log(&mut self, node: u64, bytes: Vec<u8>) {
        self.logs.entry(node).or_default().insert(tp(), Ok(bytes));
    }

    pub fn unread(&mut self, node: u64, why: Unread) {
        self.logs.entry(node).or_default().insert(tp(), Err(why));
    }

    pub fn finish(&mut self) -> Check {
        for (node, view) in &mut self.nodes {
            view.logs = Logs::Kept(Arc::new(self.logs.get(node).cloned().unwrap_or_default()));
        }
        let seen = Observation { now_us: self.now_us, nodes: &self.nodes };
        self.keeper.finish(&seen)?;
        self.under_test.finish(&seen)
    }

    // ---- clients ----

    pub fn send(&mut self, attempt: u64) -> Check {
        self.send_as(WRITER, attempt, Acks::All, true)
    }

    pub fn send_as(&mut self, session: Session, attempt: u64, acks: Acks, idempotent: bool) -> Check {
        self.happen(What::Send { session, attempt: Attempt(attempt), tp: tp(), acks, idempotent })
    }

    pub fn sent(&mut self, attempt: u64, outcome: Outcome<Option<i64>>) -> Check {
        let session = self.ledger.borrow().attempts[&Attempt(attempt)].session;
        self.happen(What::Sent { session, attempt: Attempt(attempt), outcome })
    }

    pub fn acked(&mut self, attempt: u64, offset: i64) -> Check {
        self.sent(attempt, Outcome::Acknowledged(Some(offset)))
    }

    pub fn failed(&mut self, attempt: u64) -> Check {
        self.sent(attempt, Outcome::Failed("refused".to_owned()))
    }

    pub fn read(&mut self, offset: i64, attempt: u64) -> Check {
        self.read_as(READER, offset, 1, Some(attempt), attempt as u32)
    }

    pub fn read_as(
        &mut self,
        session: Session,
        offset: i64,
        leader_epoch: i32,
        attempt: Option<u64>,
        checksum: u32,
    ) -> Check {
        let attempt = attempt.map(Attempt);
        self.happen(What::Read { session, tp: tp(), offset, leader_epoch, attempt, checksum })
    }

    pub fn position(&mut self, session: Session, offset: i64) -> Check {
        self.happen(What::Position { session, tp: tp(), offset })
    }

    pub fn end_read(&mut self, session: Session, latest: bool, offset: i64) -> Check {
        let asked_us = self.now_us;
        self.happen(What::EndRead { session, tp: tp(), latest, offset, asked_us })
    }
}

/// The check failed, and its message says this.
#[track_caller]
pub fn broken(check: Check, says: &str) {
    let violation = check.expect_err("this is not allowed");
    assert!(violation.what.contains(says), "{violation} does not say {says:?}");
}
