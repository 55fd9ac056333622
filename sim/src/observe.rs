//! What the world sees of the nodes between two steps: the white-box half of what the oracle gets. Plain values; the
//! broker's own types stay here.

use crate::history::Tp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_metadata::Image;
use strandline_node::inspect::{Inspect, RoleMarks};
use strandline_raft::MembershipMarks;
use strandline_record::{Offset, PartitionId, TopicPartition};

/// One node that runs.
#[derive(Clone, Debug)]
pub struct NodeView {
    pub node: u64,
    /// How often this host was started.
    pub life: u64,
    pub broker_epoch: Option<u64>,
    pub raft: RaftView,
    pub image: Arc<ImageView>,
    pub replicas: BTreeMap<Tp, ReplicaView>,
    pub logs: Logs,
}

/// The bytes of a node's replicas, for whoever asks for them.
#[derive(Clone, Debug, Default)]
pub enum Logs {
    #[default]
    None,
    Live(Inspect, Arc<Image>),
    /// Made up, by partition.
    Kept(Arc<BTreeMap<Tp, Result<Vec<u8>, Unread>>>),
}

/// Why a log gave no bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The replica says that it is damaged; it may have found that out just now.
    Damaged,
    Failed(String),
}

/// What one read of a log asks for.
const READ_BYTES: usize = 1 << 20;

impl Logs {
    /// Every stored batch of this node's replica, from its log start to its log end, visible or not.
    ///
    /// # Errors
    /// No such replica, or a log that cannot be read.
    pub fn read(&self, tp: &Tp) -> Result<Vec<u8>, Unread> {
        let absent = || Unread::Failed(format!("{tp} is not here"));
        let (inspect, image) = match self {
            Logs::None => return Err(absent()),
            Logs::Kept(logs) => return logs.get(tp).cloned().ok_or_else(absent)?,
            Logs::Live(inspect, image) => (inspect, image),
        };
        let topic = image.topic_ids.get(&tp.topic).ok_or_else(absent)?;
        let id = TopicPartition { topic: *topic, partition: PartitionId(tp.partition) };
        let mut whole = Vec::new();
        let mut from = Offset(0);
        loop {
            let bytes = inspect.read_log(id, from, READ_BYTES).map_err(|error| {
                let damaged = inspect.partitions().iter().any(|marks| marks.tp == id && marks.damaged);
                if damaged { Unread::Damaged } else { Unread::Failed(error.to_string()) }
            })?;
            match next_offset(&bytes) {
                Some(next) if next > from.0 => from = Offset(next),
                _ => return Ok(whole),
            }
            whole.extend_from_slice(&bytes);
        }
    }
}

/// Where the last whole batch of these ends. Only lengths and offsets are looked at: whether the rest makes sense is
/// for the oracle to say.
fn next_offset(bytes: &[u8]) -> Option<i64> {
    let mut rest = bytes;
    let mut next = None;
    while let (Some(base), Some(length), Some(delta)) =
        (rest.first_chunk::<8>(), rest.get(8..12), rest.get(23..27))
    {
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        let delta = i32::from_be_bytes(delta.try_into().expect("four bytes"));
        let Some(behind) = rest.get(12 + length..) else { break };
        next = Some(i64::from_be_bytes(*base) + i64::from(delta) + 1);
        rest = behind;
    }
    next
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaftView {
    pub term: u64,
    pub leader: bool,
    pub last: u64,
    pub committed: u64,
    pub applied: u64,
    pub snapshot: u64,
    pub purged: u64,
    /// Who votes, a bit for each id.
    pub voters: u64,
    /// A change of the members is under way, or was left half done.
    pub changing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    pub role: Role,
    pub log_start: i64,
    pub log_end: i64,
    pub flushed_end: i64,
    pub high_watermark: i64,
    /// Of a leader; empty otherwise.
    pub maximal_isr: Vec<u64>,
    pub damaged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Idle,
    Leader { epoch: i32 },
    Follower { leader: u64, epoch: i32 },
}

/// The metadata of one node, at one Raft index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ImageView {
    pub index: u64,
    pub brokers: BTreeMap<u64, BrokerView>,
    pub partitions: BTreeMap<Tp, Arc<PartitionView>>,
    pub groups: BTreeMap<Arc<str>, GroupView>,
    /// (group, partition) → committed offset.
    pub offsets: BTreeMap<(Arc<str>, Tp), i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BrokerView {
    pub epoch: u64,
    pub fenced: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionView {
    pub replicas: Vec<u64>,
    pub leader: Option<u64>,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    pub isr: BTreeSet<u64>,
    pub elr: BTreeSet<u64>,
    /// Leader epoch of the last unclean election; 0: there was none.
    pub unclean_epoch: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupView {
    pub generation: i32,
    pub assigned: bool,
    /// Member id → the bytes of its assignment.
    pub members: BTreeMap<Arc<str>, Arc<[u8]>>,
}

/// Makes views, and makes again only what changed since the last time.
#[derive(Debug, Default)]
pub struct Observer {
    seen: Option<(Arc<Image>, Arc<ImageView>)>,
    /// By life and marks: who votes, and whether that is changing.
    members: Option<((u64, MembershipMarks), u64, bool)>,
}

impl Observer {
    pub fn look(&mut self, node: &Inspect, life: u64) -> NodeView {
        let raft = node.raft();
        let (voters, changing) = self.members(node, life);
        let image = self.image(node.image());
        let names = &self.seen.as_ref().expect("it was just set").0;
        let replicas = node.partitions().into_iter().filter_map(|marks| {
            let view = ReplicaView {
                role: match marks.role {
                    RoleMarks::Idle => Role::Idle,
                    RoleMarks::Leader { epoch } => Role::Leader { epoch: epoch.0 },
                    RoleMarks::Follower { leader, epoch } => {
                        Role::Follower { leader: leader.0, epoch: epoch.0 }
                    }
                },
                log_start: marks.log_start.0,
                log_end: marks.log_end.0,
                flushed_end: marks.flushed_end.0,
                high_watermark: marks.high_watermark.0,
                maximal_isr: marks.maximal_isr.iter().map(|id| id.0).collect(),
                damaged: marks.damaged,
            };
            Some((named(names, marks.tp)?, view))
        });
        NodeView {
            node: node.node().0,
            life,
            broker_epoch: node.broker_epoch().map(|epoch| epoch.0),
            raft: RaftView {
                term: raft.term,
                leader: raft.is_leader,
                last: raft.last_index.unwrap_or(0),
                committed: raft.committed.unwrap_or(0),
                applied: raft.applied.unwrap_or(0),
                snapshot: raft.snapshot.unwrap_or(0),
                purged: raft.purged.unwrap_or(0),
                voters,
                changing,
            },
            image,
            replicas: replicas.collect(),
            logs: Logs::Live(node.clone(), names.clone()),
        }
    }

    fn members(&mut self, node: &Inspect, life: u64) -> (u64, bool) {
        let marks = (life, node.membership_marks());
        if let Some((seen, voters, changing)) = self.members
            && seen == marks
        {
            return (voters, changing);
        }
        let members = node.membership();
        let voters = members.voters.iter().fold(0, |bits, id| bits | 1 << (id % 64));
        let changing = members.changing || members.joint;
        self.members = Some((marks, voters, changing));
        (voters, changing)
    }

    fn image(&mut self, image: Arc<Image>) -> Arc<ImageView> {
        if let Some((seen, view)) = &self.seen
            && Arc::ptr_eq(seen, &image)
        {
            return view.clone();
        }
        let before = self.seen.take();
        let view = Arc::new(view_of(&image, before.as_ref()));
        self.seen = Some((image, view.clone()));
        view
    }
}

/// `None` for a topic that this image has forgotten.
fn named(image: &Image, tp: TopicPartition) -> Option<Tp> {
    image.topics.get(&tp.topic).map(|topic| Tp { topic: topic.name.clone(), partition: tp.partition.0 })
}

fn view_of(image: &Image, before: Option<&(Arc<Image>, Arc<ImageView>)>) -> ImageView {
    let brokers = image
        .brokers
        .iter()
        .map(|(id, broker)| (id.0, BrokerView { epoch: broker.epoch.0, fenced: broker.fenced }));
    let partitions = image.partitions.iter().filter_map(|(tp, partition)| {
        let name = named(image, *tp)?;
        if let Some((seen, view)) = before
            && seen.partitions.get(tp).is_some_and(|old| Arc::ptr_eq(old, partition))
            && let Some(old) = view.partitions.get(&name)
        {
            return Some((name, old.clone()));
        }
        let view = PartitionView {
            replicas: partition.replicas.iter().map(|id| id.0).collect(),
            leader: partition.leader.map(|id| id.0),
            leader_epoch: partition.leader_epoch.0,
            partition_epoch: partition.partition_epoch.0,
            isr: partition.isr.iter().map(|id| id.0).collect(),
            elr: partition.elr.iter().map(|id| id.0).collect(),
            unclean_epoch: partition.unclean_epoch.0,
        };
        Some((name, Arc::new(view)))
    });
    let groups = image.groups.iter().map(|(name, group)| {
        let members =
            group.members.iter().map(|(id, member)| (id.clone(), member.assignment.clone())).collect();
        let view = GroupView { generation: group.generation.0, assigned: group.assigned, members };
        (name.clone(), view)
    });
    let offsets = image.offsets.iter().filter_map(|((group, tp), committed)| {
        Some(((group.clone(), named(image, *tp)?), committed.offset.0))
    });
    ImageView {
        index: image.index,
        brokers: brokers.collect(),
        partitions: partitions.collect(),
        groups: groups.collect(),
        offsets: offsets.collect(),
    }
}
