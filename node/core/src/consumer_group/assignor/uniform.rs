//! `uniform`: as balanced as the subscriptions allow, and as little moved as that allows.
//!
//! 1. Everyone keeps what it had, as far as it still subscribes to it.
//! 2. What nobody has goes to the subscriber with the fewest partitions, topics with few subscribers first.
//! 3. While some member has at least two more than another that could take them, directly or by others
//!    passing theirs on, that many go along the shortest such way.
//!
//! Step 3 ends with no such pair: the loads are then as even as the subscriptions allow (an assignment
//! without cost-reducing paths is optimal: Harvey, Ladner, Lovász, Tamir, "Semi-matchings for bipartite
//! graphs and load balancing", 2006). With equal subscriptions everyone can take everything, so the loads
//! differ by at most one.

use super::Problem;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use strandline_metadata::Partitions;
use strandline_record::{PartitionId, TopicId, TopicPartition};

pub fn assign(problem: &Problem) -> BTreeMap<Arc<str>, Partitions> {
    let mut work = Work::keep_previous(problem);
    work.hand_out();
    work.balance();
    let ids = problem.members.keys().cloned();
    ids.zip(work.owned.iter().map(|owned| work.partitions(owned))).collect()
}

/// Topic (its place in `topics`) → partition numbers.
type Owned = BTreeMap<usize, BTreeSet<i32>>;

struct Work<'a> {
    problem: &'a Problem,
    topics: Vec<(TopicId, i32)>,
    /// By topic: the members (by their places) that subscribe to it.
    subscribers: Vec<Vec<usize>>,
    /// By topic: what nobody has.
    free: Vec<BTreeSet<i32>>,
    /// By member.
    owned: Vec<Owned>,
    load: Vec<usize>,
    previous: Vec<&'a Partitions>,
}

/// How the search got to a member: from which one, by handing on a partition of which topic.
type Way = Option<(usize, usize)>;

impl<'a> Work<'a> {
    fn keep_previous(problem: &'a Problem) -> Self {
        let topics: Vec<(TopicId, i32)> = problem.topics.iter().map(|(id, count)| (*id, *count)).collect();
        let place: BTreeMap<TopicId, usize> =
            topics.iter().enumerate().map(|(n, (id, _))| (*id, n)).collect();
        let mut subscribers = vec![Vec::new(); topics.len()];
        let mut free: Vec<BTreeSet<i32>> = topics.iter().map(|(_, count)| (0..*count).collect()).collect();
        let mut owned = vec![Owned::new(); problem.members.len()];
        for (member, assignee) in problem.members.values().enumerate() {
            for topic in assignee.subscribed.iter().filter_map(|id| place.get(id)) {
                subscribers[*topic].push(member);
            }
            for (id, partitions) in assignee.previous.by_topic() {
                let Some(topic) = place.get(&id).filter(|_| assignee.subscribed.contains(&id)) else {
                    continue;
                };
                let kept: BTreeSet<i32> =
                    partitions.iter().map(|p| p.0).filter(|p| free[*topic].remove(p)).collect();
                if !kept.is_empty() {
                    owned[member].insert(*topic, kept);
                }
            }
        }
        let load = owned.iter().map(|owned| owned.values().map(BTreeSet::len).sum()).collect();
        let previous = problem.members.values().map(|m| &m.previous).collect();
        Work { problem, topics, subscribers, free, owned, load, previous }
    }

    fn hand_out(&mut self) {
        let mut order: Vec<usize> =
            (0..self.topics.len()).filter(|t| !self.subscribers[*t].is_empty()).collect();
        order.sort_by_key(|topic| self.subscribers[*topic].len());
        for topic in order {
            let waiting = std::mem::take(&mut self.free[topic]);
            let mut least: BinaryHeap<Reverse<(usize, usize)>> =
                self.subscribers[topic].iter().map(|member| Reverse((self.load[*member], *member))).collect();
            for partition in waiting {
                let Reverse((load, member)) = least.pop().expect("the topic has a subscriber");
                self.owned[member].entry(topic).or_default().insert(partition);
                self.load[member] = load + 1;
                least.push(Reverse((load + 1, member)));
            }
        }
    }

    fn balance(&mut self) {
        let members = self.problem.members.len();
        let even = self.load.iter().sum::<usize>().div_ceil(members.max(1));
        let mut open: BTreeSet<usize> = (0..members).collect();
        while let Some(from) = open.iter().copied().max_by_key(|m| (self.load[*m], Reverse(*m))) {
            let reached = self.reachable(from);
            let to = reached.keys().copied().min_by_key(|m| (self.load[*m], *m)).expect("it reaches itself");
            let (high, low) = (self.load[from], self.load[to]);
            if high < low + 2 {
                // Nobody whom it reaches can hand anything on to someone with two fewer either: they have at
                // most as much as it has, and reach no one else.
                open.retain(|member| !reached.contains_key(member));
                continue;
            }
            let wanted = high.saturating_sub(even).min(even.saturating_sub(low));
            self.shift(&reached, to, wanted.clamp(1, (high - low) / 2));
        }
    }

    /// Members to which something can get from `from`, by each step handing on one partition. Breadth first.
    fn reachable(&self, from: usize) -> BTreeMap<usize, Way> {
        let mut reached: BTreeMap<usize, Way> = BTreeMap::from([(from, None)]);
        let mut seen = vec![false; self.topics.len()];
        let mut queue = VecDeque::from([from]);
        while let Some(member) = queue.pop_front() {
            for topic in self.owned[member].keys() {
                if std::mem::replace(&mut seen[*topic], true) {
                    continue;
                }
                for next in &self.subscribers[*topic] {
                    reached.entry(*next).or_insert_with(|| {
                        queue.push_back(*next);
                        Some((member, *topic))
                    });
                }
            }
        }
        reached
    }

    /// Hands up to `wanted` partitions on along the way to `to`, at least one.
    fn shift(&mut self, reached: &BTreeMap<usize, Way>, to: usize, wanted: usize) {
        let mut steps = Vec::new();
        let mut at = to;
        while let Some((giver, topic)) = reached[&at] {
            steps.push((giver, topic, at));
            at = giver;
        }
        let available = steps.iter().map(|(giver, topic, _)| self.owned[*giver][topic].len()).min();
        let count = wanted.min(available.expect("the way has a step"));
        for (giver, topic, taker) in steps {
            for _ in 0..count {
                self.hand_on(giver, topic, taker);
            }
        }
        self.load[at] -= count;
        self.load[to] += count;
    }

    fn hand_on(&mut self, giver: usize, topic: usize, taker: usize) {
        let id = self.topics[topic].0;
        let had = |member: usize, partition: i32| {
            self.previous[member].contains(&TopicPartition { topic: id, partition: PartitionId(partition) })
        };
        // Back to where it was, rather than something that the giver has only just got, rather than its own.
        let rank = |partition: &i32| (!had(taker, *partition), had(giver, *partition), Reverse(*partition));
        let partitions = &self.owned[giver][&topic];
        let partition =
            *partitions.iter().min_by_key(|p| rank(p)).expect("the way goes by a partition it has");
        let of_giver = self.owned[giver].get_mut(&topic).expect("it has it");
        of_giver.remove(&partition);
        if of_giver.is_empty() {
            self.owned[giver].remove(&topic);
        }
        self.owned[taker].entry(topic).or_default().insert(partition);
    }

    fn partitions(&self, owned: &Owned) -> Partitions {
        let all = owned.iter().flat_map(|(topic, partitions)| partitions.iter().map(move |p| (*topic, *p)));
        all.map(|(topic, partition)| TopicPartition {
            topic: self.topics[topic].0,
            partition: PartitionId(partition),
        })
        .collect()
    }
}
