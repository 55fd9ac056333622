//! `cooperative-sticky` (KIP-429): members keep what they hold as far as balance allows, and a partition
//! that moves is first only taken from its owner. That owner joins again without it, and the next round
//! gives it away. So members go on consuming everything that does not move.
//!
//! Conflicting claims (a member that missed a rebalance still names what it had) go to the highest
//! generation; a tie goes to nobody.
//!
//! Balance: a member never has two partitions more than another that could take one of them, directly or
//! through a chain of members who each pass one on. With equal subscriptions all counts differ by at most
//! one and the least possible number of partitions moves.

use super::*;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, Default)]
pub struct CooperativeSticky;

/// Generation of a member that names none.
const NO_GENERATION: i32 = -1;

impl Assignor for CooperativeSticky {
    fn name(&self) -> &'static str {
        "cooperative-sticky"
    }

    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Cooperative
    }

    /// The generation, as Kafka's client sends it for leaders that read no version 2 subscription.
    fn subscription_user_data(&self, generation: Option<i32>) -> Option<Vec<u8>> {
        Some(generation.unwrap_or(NO_GENERATION).to_be_bytes().to_vec())
    }

    fn assign(
        &self,
        partitions_per_topic: &BTreeMap<String, i32>,
        members: &BTreeMap<String, Subscription>,
    ) -> Assignments {
        let ordered = in_order(members);
        let claims = Claims::of(&ordered);
        let mut balance = Balance::new(partitions_per_topic, &ordered);
        balance.keep(&claims);
        balance.fill();
        balance.even_out();
        let mut assignments = nothing(members);
        for ((topic, partition), place) in balance.into_owners() {
            if claims.may_have(place, topic, partition) {
                let mine = assignments.get_mut(ordered[place].0).expect("every member has an entry");
                mine.push((topic.to_owned(), partition));
            }
        }
        assignments
    }
}

/// Who says to hold a partition.
struct Claims<'a> {
    by_partition: BTreeMap<(&'a str, i32), Vec<Claim>>,
}

#[derive(Clone, Copy)]
struct Claim {
    place: usize,
    generation: i32,
}

impl<'a> Claims<'a> {
    fn of(members: &[(&'a String, &'a Subscription)]) -> Self {
        let mut by_partition: BTreeMap<(&str, i32), Vec<Claim>> = BTreeMap::new();
        for (place, (_, subscription)) in members.iter().enumerate() {
            let claim = Claim { place, generation: generation_of(subscription) };
            for (topic, partition) in subscription.owned_partitions.iter().collect::<BTreeSet<_>>() {
                by_partition.entry((topic, *partition)).or_default().push(claim);
            }
        }
        Self { by_partition }
    }

    /// Whose claim counts: that of the highest generation, if there is one such.
    fn owner(&self, topic: &str, partition: i32) -> Option<usize> {
        let claims = self.by_partition.get(&(topic, partition))?;
        let highest = claims.iter().map(|claim| claim.generation).max()?;
        let mut best = claims.iter().filter(|claim| claim.generation == highest);
        match (best.next(), best.next()) {
            (Some(owner), None) => Some(owner.place),
            _ => None,
        }
    }

    /// Whether `place` may have the partition in this round: it is its owner, or nobody else claims it.
    fn may_have(&self, place: usize, topic: &str, partition: i32) -> bool {
        let claims = self.by_partition.get(&(topic, partition));
        self.owner(topic, partition) == Some(place)
            || claims.is_none_or(|claims| claims.iter().all(|claim| claim.place == place))
    }
}

fn generation_of(subscription: &Subscription) -> i32 {
    let from_user_data = || {
        let bytes = subscription.user_data.as_ref()?.first_chunk::<4>()?;
        Some(i32::from_be_bytes(*bytes))
    };
    subscription.generation.filter(|g| *g >= 0).or_else(from_user_data).unwrap_or(NO_GENERATION)
}

/// Who gets what, while it is being worked out. Topics and members are named by their places.
struct Balance<'a> {
    topics: Vec<Topic<'a>>,
    /// Partitions of each member, in all.
    load: Vec<usize>,
    /// Topics that each member subscribes to.
    subscribed: Vec<Vec<usize>>,
}

/// One partition of a topic goes from one member to another.
struct Pass {
    giver: usize,
    topic: usize,
    taker: usize,
}

struct Topic<'a> {
    name: &'a str,
    /// Members, ascending.
    subscribers: Vec<usize>,
    /// The member that has each partition.
    owner: Vec<Option<usize>>,
    /// Whether that member had it before.
    kept: Vec<bool>,
    /// How many of them each subscriber has (parallel to `subscribers`).
    held: Vec<usize>,
}

impl Topic<'_> {
    fn nth(&self, member: usize) -> usize {
        self.subscribers.binary_search(&member).expect("only subscribers hold partitions")
    }
}

impl<'a> Balance<'a> {
    fn new(partitions_per_topic: &'a BTreeMap<String, i32>, members: &[(&String, &Subscription)]) -> Self {
        let mut subscribed = vec![Vec::new(); members.len()];
        let mut topics = Vec::new();
        for (name, subscribers) in subscribers(partitions_per_topic, members) {
            let partitions = partitions_per_topic[name].max(0) as usize;
            for member in &subscribers {
                subscribed[*member].push(topics.len());
            }
            topics.push(Topic {
                name,
                held: vec![0; subscribers.len()],
                subscribers,
                owner: vec![None; partitions],
                kept: vec![false; partitions],
            });
        }
        Self { topics, load: vec![0; members.len()], subscribed }
    }

    /// Everybody keeps what it holds and still subscribes to.
    fn keep(&mut self, claims: &Claims) {
        for topic in 0..self.topics.len() {
            for partition in 0..self.topics[topic].owner.len() {
                let Some(owner) = claims.owner(self.topics[topic].name, partition as i32) else { continue };
                if self.topics[topic].subscribers.binary_search(&owner).is_ok() {
                    self.give(topic, partition, owner);
                    self.topics[topic].kept[partition] = true;
                }
            }
        }
    }

    /// What is free goes to the member with the least; topics with few subscribers come first, as the
    /// others have more choice.
    fn fill(&mut self) {
        let mut order: Vec<usize> = (0..self.topics.len()).collect();
        order.sort_by_key(|topic| self.topics[*topic].subscribers.len());
        for topic in order {
            let mut by_load: BTreeSet<(usize, usize)> =
                self.topics[topic].subscribers.iter().map(|member| (self.load[*member], *member)).collect();
            for partition in 0..self.topics[topic].owner.len() {
                if self.topics[topic].owner[partition].is_none() {
                    let (load, member) = by_load.pop_first().expect("a topic has subscribers");
                    self.give(topic, partition, member);
                    by_load.insert((load + 1, member));
                }
            }
        }
    }

    /// Moves partitions from members with more to members with at least two fewer, until there are none
    /// such. Each move lowers the sum of the squared loads, so it ends.
    fn even_out(&mut self) {
        let mut by_load: BTreeSet<(usize, usize)> =
            self.load.iter().enumerate().map(|(member, load)| (*load, member)).collect();
        // Whoever can give to nobody now cannot later either: no later chain touches what it reaches, as
        // such a chain's end would have been in its own reach.
        let mut settled = vec![false; self.load.len()];
        loop {
            let most = by_load.iter().rev().find(|(_, member)| !settled[*member]).copied();
            let Some((load, from)) = most else { break };
            if by_load.first().is_none_or(|(least, _)| least + 2 > load) {
                break;
            }
            let Some(path) = self.path(from) else {
                settled[from] = true;
                continue;
            };
            let to = path.first().expect("a chain has a pass").taker;
            let to_load = self.load[to];
            for pass in path {
                self.pass_on(pass);
            }
            by_load.remove(&(load, from));
            by_load.remove(&(to_load, to));
            by_load.insert((load - 1, from));
            by_load.insert((to_load + 1, to));
        }
    }

    /// The shortest chain of passes from a member to one with at least two partitions fewer; of those
    /// equally near, to that with the fewest. The last pass comes first.
    fn path(&self, from: usize) -> Option<Vec<Pass>> {
        let mut came_by: Vec<Option<(usize, usize)>> = vec![None; self.load.len()];
        // All holders of a topic reach the same members through it.
        let mut passed = vec![false; self.topics.len()];
        let mut queue = VecDeque::from([(from, 0)]);
        let mut best: Option<(usize, usize)> = None;
        while let Some((giver, distance)) = queue.pop_front() {
            if best.is_some_and(|(_, nearest)| nearest <= distance) {
                break;
            }
            for &topic in &self.subscribed[giver] {
                let t = &self.topics[topic];
                if passed[topic] || t.held[t.nth(giver)] == 0 {
                    continue;
                }
                passed[topic] = true;
                for &taker in &t.subscribers {
                    if taker != from && came_by[taker].is_none() {
                        came_by[taker] = Some((giver, topic));
                        queue.push_back((taker, distance + 1));
                        if self.load[taker] + 2 <= self.load[from]
                            && best.is_none_or(|(b, _)| self.load[taker] < self.load[b])
                        {
                            best = Some((taker, distance + 1));
                        }
                    }
                }
            }
        }
        let (to, _) = best?;
        let mut path = Vec::new();
        let mut taker = to;
        while let Some((giver, topic)) = came_by[taker] {
            path.push(Pass { giver, topic, taker });
            taker = giver;
        }
        Some(path)
    }

    fn give(&mut self, topic: usize, partition: usize, member: usize) {
        let t = &mut self.topics[topic];
        assert!(t.owner[partition].is_none(), "a partition is given once");
        t.owner[partition] = Some(member);
        let nth = t.nth(member);
        t.held[nth] += 1;
        self.load[member] += 1;
    }

    /// One partition of the topic changes hands: if possible one that the giver did not hold before.
    fn pass_on(&mut self, Pass { giver, topic, taker }: Pass) {
        let t = &mut self.topics[topic];
        let held = |partition: &usize| t.owner[*partition] == Some(giver);
        let partition = (0..t.owner.len())
            .rev()
            .filter(held)
            .min_by_key(|partition| t.kept[*partition])
            .expect("the giver holds one of the topic");
        t.owner[partition] = None;
        t.kept[partition] = false;
        let nth = t.nth(giver);
        t.held[nth] -= 1;
        self.load[giver] -= 1;
        self.give(topic, partition, taker);
    }

    fn into_owners(self) -> impl Iterator<Item = ((&'a str, i32), usize)> {
        self.topics.into_iter().flat_map(|topic| {
            let owners = topic.owner.into_iter().enumerate();
            owners.map(move |(partition, owner)| {
                ((topic.name, partition as i32), owner.expect("fill leaves nothing free"))
            })
        })
    }
}
