//! What a picture of a run shows, collected while it runs: only changes are kept, so that a quiet minute costs nothing.
//! Times are in simulated milliseconds; no run knows finer ones.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_sim::history::{Event, Outcome, Session, Tp, What};
use strandline_sim::observe::{GroupView, ImageView, NodeView, PartitionView, Role};
use strandline_sim::watch::Watcher;
use strandline_sim::world::{NodeState, World};

/// Offsets are looked at this often, and what clients do is counted over so long.
const SAMPLE_MS: u64 = 100;
const BUCKET_MS: u64 = 250;

/// Everything that the page draws.
#[derive(Debug, Default, Serialize)]
pub struct Lanes {
    end: u64,
    bucket: u64,
    faults: Vec<Fault>,
    nodes: BTreeMap<u64, Node>,
    partitions: BTreeMap<String, Partition>,
    groups: BTreeMap<Arc<str>, Spans<Generation>>,
    clients: BTreeMap<Arc<str>, Client>,
}

#[derive(Debug, Serialize)]
struct Fault {
    at: u64,
    /// Nothing: it has no end of its own.
    until: Option<u64>,
    kind: String,
    what: String,
}

#[derive(Debug, Default, Serialize)]
struct Node {
    state: Spans<String>,
    /// The term in which it leads Raft.
    raft: Spans<Option<u64>>,
    fenced: Spans<bool>,
}

#[derive(Debug, Default, Serialize)]
struct Partition {
    roles: Spans<Roles>,
    /// (time, high watermark, log end) on the leader.
    offsets: Vec<(u64, i64, i64)>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Roles {
    leader: Option<u64>,
    epoch: i32,
    replicas: Vec<u64>,
    isr: Vec<u64>,
    elr: Vec<u64>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Generation {
    generation: i32,
    members: usize,
    assigned: bool,
}

#[derive(Debug, Default, Serialize)]
struct Client {
    up: Spans<bool>,
    /// By number of the bucket of time.
    buckets: BTreeMap<u64, Bucket>,
}

#[derive(Debug, Default, Serialize)]
struct Bucket {
    sent: u64,
    acknowledged: u64,
    failed: u64,
    unknown: u64,
    read: u64,
    commits: u64,
}

/// A value over time: each holds from its time to the next one's.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Spans<T>(Vec<(u64, T)>);

impl<T> Default for Spans<T> {
    fn default() -> Self {
        Spans(Vec::new())
    }
}

impl<T: PartialEq> Spans<T> {
    fn now(&mut self, at: u64, value: T) {
        if self.0.last().is_none_or(|(_, last)| *last != value) {
            self.0.push((at, value));
        }
    }
}

#[derive(Debug, Default)]
pub struct Timeline {
    lanes: Lanes,
    image: Option<Arc<ImageView>>,
    /// What sessions did of which it is not yet known whose they are.
    nameless: BTreeMap<Session, BTreeMap<u64, Bucket>>,
    names: BTreeMap<Session, Arc<str>>,
}

impl Watcher for Timeline {
    fn step(&mut self, world: &World) {
        let now = world.now_us() / 1_000;
        self.lanes.end = now;
        for id in world.node_ids() {
            self.node(now, id, world);
        }
        let newest = world.views().values().map(|view| &view.image).max_by_key(|image| image.index);
        if let Some(image) = newest
            && self.image.as_ref().is_none_or(|seen| seen.index < image.index)
        {
            self.image(now, image.clone());
        }
        if now.is_multiple_of(SAMPLE_MS) {
            self.offsets(now, world.views());
            for name in world.client_names() {
                let up = world.client(&name).is_up();
                self.lanes.clients.entry(name).or_default().up.now(now, up);
            }
        }
        for (session, buckets) in std::mem::take(&mut self.nameless) {
            if let Some(name) = world.recorder().client_of(session) {
                self.lanes.clients.entry(name.clone()).or_default().merge(buckets);
                self.names.insert(session, name);
            }
        }
    }

    fn event(&mut self, event: &Event) {
        let Some(session) = event.what.session() else { return };
        let buckets = match self.names.get(&session) {
            Some(name) => &mut self.lanes.clients.entry(name.clone()).or_default().buckets,
            None => self.nameless.entry(session).or_default(),
        };
        let number = event.at_us / 1_000 / BUCKET_MS;
        let bucket = buckets.entry(number).or_default();
        match &event.what {
            What::Send { .. } => bucket.sent += 1,
            What::Sent { outcome, .. } => bucket.ended(outcome),
            What::DeletedRecords { outcome, .. } => bucket.ended(outcome),
            What::Read { .. } => bucket.read += 1,
            What::Committed { outcome: Outcome::Acknowledged(()), .. } => bucket.commits += 1,
            What::Committed { outcome, .. } => bucket.ended(outcome),
            _ => {}
        }
    }

    fn fault(&mut self, at_us: u64, kind: &str, what: &str, until_us: Option<u64>) {
        let until = until_us.map(|until| until / 1_000);
        let (kind, what) = (kind.to_owned(), what.to_owned());
        self.lanes.faults.push(Fault { at: at_us / 1_000, until, kind, what });
    }
}

impl Timeline {
    pub(super) fn lanes(self) -> Lanes {
        Lanes { bucket: BUCKET_MS, ..self.lanes }
    }

    fn node(&mut self, now: u64, id: u64, world: &World) {
        let lane = self.lanes.nodes.entry(id).or_default();
        let host = world.node(id);
        let view = world.views().get(&id);
        // A node that is up and cannot be looked into yet is starting.
        let state = match (view, host.is_up()) {
            (Some(_), _) => "up".to_owned(),
            (None, true) => "starting".to_owned(),
            (None, false) => match host.state() {
                NodeState::Ended(None) => "stopped".to_owned(),
                NodeState::Ended(Some(error)) => format!("ended: {error}"),
                NodeState::Up | NodeState::Down => "down".to_owned(),
            },
        };
        lane.state.now(now, state);
        let raft = view.filter(|view| view.raft.leader).map(|view| view.raft.term);
        lane.raft.now(now, raft);
    }

    fn image(&mut self, now: u64, image: Arc<ImageView>) {
        let before = self.image.take().unwrap_or_default();
        for (id, broker) in &image.brokers {
            self.lanes.nodes.entry(*id).or_default().fenced.now(now, broker.fenced);
        }
        for (tp, partition) in &image.partitions {
            if !before.partitions.get(tp).is_some_and(|seen| Arc::ptr_eq(seen, partition)) {
                let lane = self.lanes.partitions.entry(tp.to_string()).or_default();
                lane.roles.now(now, roles(partition));
            }
        }
        for (name, group) in &image.groups {
            if before.groups.get(name) != Some(group) {
                self.lanes.groups.entry(name.clone()).or_default().now(now, generation(group));
            }
        }
        self.image = Some(image);
    }

    fn offsets(&mut self, now: u64, views: &BTreeMap<u64, NodeView>) {
        let Some(image) = &self.image else { return };
        for tp in image.partitions.keys() {
            if let Some((high_watermark, log_end)) = of_leader(tp, views) {
                let lane = self.lanes.partitions.entry(tp.to_string()).or_default();
                let last = lane.offsets.last();
                if last.is_none_or(|(_, hw, end)| (*hw, *end) != (high_watermark, log_end)) {
                    lane.offsets.push((now, high_watermark, log_end));
                }
            }
        }
    }
}

/// High watermark and log end of the leader with the greatest epoch: an old leader may still take itself for one.
fn of_leader(tp: &Tp, views: &BTreeMap<u64, NodeView>) -> Option<(i64, i64)> {
    let replicas = views.values().filter_map(|view| view.replicas.get(tp));
    let leaders = replicas.filter_map(|replica| match replica.role {
        Role::Leader { epoch } => Some((epoch, replica)),
        _ => None,
    });
    let (_, leader) = leaders.max_by_key(|(epoch, _)| *epoch)?;
    Some((leader.high_watermark, leader.log_end))
}

fn roles(partition: &PartitionView) -> Roles {
    Roles {
        leader: partition.leader,
        epoch: partition.leader_epoch,
        replicas: partition.replicas.clone(),
        isr: partition.isr.iter().copied().collect(),
        elr: partition.elr.iter().copied().collect(),
    }
}

fn generation(group: &GroupView) -> Generation {
    let GroupView { generation, assigned, members } = group;
    Generation { generation: *generation, members: members.len(), assigned: *assigned }
}

impl Client {
    fn merge(&mut self, buckets: BTreeMap<u64, Bucket>) {
        for (number, more) in buckets {
            let bucket = self.buckets.entry(number).or_default();
            bucket.sent += more.sent;
            bucket.acknowledged += more.acknowledged;
            bucket.failed += more.failed;
            bucket.unknown += more.unknown;
            bucket.read += more.read;
            bucket.commits += more.commits;
        }
    }
}

impl Bucket {
    fn ended<T>(&mut self, outcome: &Outcome<T>) {
        match outcome {
            Outcome::Acknowledged(_) => self.acknowledged += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Unknown(_) => self.unknown += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_kept() {
        let mut spans = Spans::default();
        for (at, value) in [(1, 'a'), (2, 'a'), (5, 'b'), (6, 'b'), (9, 'a')] {
            spans.now(at, value);
        }
        assert_eq!(spans.0, [(1, 'a'), (5, 'b'), (9, 'a')]);
    }

    #[test]
    fn what_a_client_did_before_its_name_was_known_is_added_to_what_it_did_after() {
        let mut client = Client::default();
        client.buckets.insert(3, Bucket { sent: 2, ..Bucket::default() });
        client.merge(BTreeMap::from([(3, Bucket { sent: 1, unknown: 4, ..Bucket::default() })]));
        assert_eq!((client.buckets[&3].sent, client.buckets[&3].unknown), (3, 4));
    }
}
