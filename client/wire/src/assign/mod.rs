//! Assignment of a group's partitions by its leading member: Kafka's consumer embedded protocol (the bytes
//! that JoinGroup and SyncGroup carry) and its assignors, under the names that Kafka's Java client uses, so
//! that members of both kinds can share a group.
//!
//! What holds for every assignor:
//! * each partition of a subscribed, known topic goes to exactly one member subscribed to it
//!   (cooperative: to none for one round, while its owner still has to give it up);
//! * the result depends on nothing but the arguments.
//!
//! Pure: no crate but the standard library.

mod codec;
mod range;
mod roundrobin;
mod sticky;

pub use codec::CodecError;
pub use range::Range;
pub use roundrobin::RoundRobin;
pub use sticky::CooperativeSticky;

use std::collections::{BTreeMap, BTreeSet};

/// Topic name and partition number.
pub type TopicPartition = (String, i32);

/// Member id → partitions, sorted. Every member has an entry.
pub type Assignments = BTreeMap<String, Vec<TopicPartition>>;

/// What a member gives up before it joins again (KIP-429).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebalanceProtocol {
    /// Everything.
    Eager,
    /// Only what the next assignment takes from it; it joins again afterwards.
    Cooperative,
}

/// ConsumerProtocolSubscription: what a member tells the leader when it joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    pub topics: Vec<String>,
    pub user_data: Option<Vec<u8>>,
    /// Version 1 and later: what the member still holds.
    pub owned_partitions: Vec<TopicPartition>,
    /// Version 2 and later: the generation in which it got `owned_partitions`.
    pub generation: Option<i32>,
    /// Version 3 and later.
    pub rack: Option<String>,
    /// `group.instance.id`. Not in the bytes: the leader learns it from JoinGroup, and it gives static
    /// members the same place in the order after a restart.
    pub instance_id: Option<String>,
}

/// ConsumerProtocolAssignment: what the leader hands to a member through SyncGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    pub partitions: Vec<TopicPartition>,
    pub user_data: Option<Vec<u8>>,
}

pub trait Assignor: Send + Sync {
    /// Kafka's name, the protocol's name in JoinGroup.
    fn name(&self) -> &'static str;

    fn protocol(&self) -> RebalanceProtocol;

    /// User data for the subscription of a member that holds an assignment of `generation`.
    fn subscription_user_data(&self, generation: Option<i32>) -> Option<Vec<u8>> {
        let _ = generation;
        None
    }

    /// Topics that `partitions_per_topic` does not have are not assigned.
    fn assign(
        &self,
        partitions_per_topic: &BTreeMap<String, i32>,
        members: &BTreeMap<String, Subscription>,
    ) -> Assignments;
}

/// All assignors, in the order in which a member should offer them if it has no preference.
pub const ASSIGNORS: [&dyn Assignor; 3] = [&Range, &RoundRobin, &CooperativeSticky];

/// The assignor that Kafka knows under `name`.
pub fn assignor(name: &str) -> Option<&'static dyn Assignor> {
    ASSIGNORS.into_iter().find(|assignor| assignor.name() == name)
}

/// Kafka's order of members: static ones first, by instance id, then the others by member id.
fn in_order(members: &BTreeMap<String, Subscription>) -> Vec<(&String, &Subscription)> {
    let mut ordered: Vec<_> = members.iter().collect();
    ordered.sort_by_key(|(id, subscription)| {
        (subscription.instance_id.is_none(), subscription.instance_id.as_deref(), id.as_str())
    });
    ordered
}

/// Every known topic that someone subscribes to → places (in `members`) of its subscribers, ascending.
fn subscribers<'a>(
    partitions_per_topic: &'a BTreeMap<String, i32>,
    members: &[(&String, &Subscription)],
) -> BTreeMap<&'a str, Vec<usize>> {
    let mut by_topic: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, (_, subscription)) in members.iter().enumerate() {
        for topic in subscription.topics.iter().collect::<BTreeSet<_>>() {
            if let Some((topic, _)) = partitions_per_topic.get_key_value(topic) {
                by_topic.entry(topic).or_default().push(place);
            }
        }
    }
    by_topic
}

/// Nothing for anyone yet.
fn nothing(members: &BTreeMap<String, Subscription>) -> Assignments {
    members.keys().map(|id| (id.clone(), Vec::new())).collect()
}
