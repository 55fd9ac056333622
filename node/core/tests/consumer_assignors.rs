//! What the server-side assignors promise, on random groups.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_core::consumer_group::assignor::{Assignee, Assignor, Problem};
use strandline_metadata::Partitions;
use strandline_metadata::command::tp;
use strandline_record::{TopicId, TopicPartition};
use uuid::Uuid;

type Assigned = BTreeMap<Arc<str>, Partitions>;

fn topic(n: usize) -> TopicId {
    TopicId(Uuid::from_u128(n as u128))
}

fn problem(counts: &[i32], subscriptions: &[BTreeSet<usize>]) -> Problem {
    let members = subscriptions.iter().enumerate().map(|(n, subscribed)| {
        let of = subscribed.iter().filter(|t| **t < counts.len()).map(|t| topic(*t)).collect();
        (format!("m{n:02}").into(), Assignee { subscribed: Arc::new(of), ..Assignee::default() })
    });
    Problem {
        topics: counts.iter().enumerate().map(|(n, count)| (topic(n), *count)).collect(),
        members: members.collect(),
    }
}

fn equal(counts: &[i32], members: usize) -> Problem {
    problem(counts, &vec![(0..counts.len()).collect(); members])
}

/// The problem as it stands after an assignment.
fn after(mut problem: Problem, assigned: &Assigned) -> Problem {
    for (id, member) in &mut problem.members {
        member.previous = assigned.get(id).cloned().unwrap_or_default();
    }
    problem
}

fn loads(assigned: &Assigned) -> Vec<usize> {
    assigned.values().map(Partitions::len).collect()
}

fn moved(before: &Assigned, now: &Assigned) -> usize {
    now.iter()
        .map(|(id, has)| has.iter().filter(|tp| before.get(id).is_none_or(|had| !had.contains(tp))).count())
        .sum()
}

/// Every partition with a subscriber has one owner, who subscribes to it; every member has an entry.
fn check(problem: &Problem, assigned: &Assigned) {
    assert!(assigned.keys().eq(problem.members.keys()));
    let mut owners: BTreeSet<TopicPartition> = BTreeSet::new();
    for (id, has) in assigned {
        for tp in has.iter() {
            assert!(owners.insert(tp), "{tp} has two owners");
            assert!(problem.members[id].subscribed.contains(&tp.topic), "{id} did not ask for {tp}");
        }
    }
    let wanted: usize = problem
        .topics
        .iter()
        .filter(|(id, _)| problem.members.values().any(|m| m.subscribed.contains(id)))
        .map(|(_, count)| *count as usize)
        .sum();
    assert_eq!(owners.len(), wanted);
}

/// Nobody can hand a partition to someone with two fewer.
fn check_no_better_neighbour(problem: &Problem, assigned: &Assigned) {
    for (giver, has) in assigned {
        for (topic, _) in has.by_topic() {
            for (taker, other) in
                assigned.iter().filter(|(id, _)| problem.members[*id].subscribed.contains(&topic))
            {
                assert!(has.len() < other.len() + 2, "{giver} could give of {topic} to {taker}");
            }
        }
    }
}

fn counts() -> impl Strategy<Value = Vec<i32>> {
    prop::collection::vec(1_i32..12, 0..6)
}

fn subscriptions() -> impl Strategy<Value = Vec<BTreeSet<usize>>> {
    prop::collection::vec(prop::collection::btree_set(0_usize..6, 0..5), 0..8)
}

proptest! {
    #[test]
    fn everything_is_assigned_once_to_those_who_asked(counts in counts(), subscriptions in subscriptions()) {
        let problem = problem(&counts, &subscriptions);
        for assignor in Assignor::ALL {
            let assigned = assignor.assign(&problem);
            check(&problem, &assigned);
            let again = assignor.assign(&problem);
            prop_assert_eq!(assigned, again);
        }
    }

    #[test]
    fn uniform_is_balanced_within_one_if_all_subscribe_alike(counts in counts(), members in 1_usize..9) {
        let problem = equal(&counts, members);
        let loads = loads(&Assignor::Uniform.assign(&problem));
        prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{:?}", loads);
    }

    #[test]
    fn uniform_leaves_no_one_who_could_pass_something_on(
        counts in counts(),
        first in subscriptions(),
        second in subscriptions(),
    ) {
        // From nothing, and from what another set of subscriptions has left.
        let before = problem(&counts, &first);
        let assigned = Assignor::Uniform.assign(&before);
        check_no_better_neighbour(&before, &assigned);
        let now = after(problem(&counts, &second), &assigned);
        let assigned = Assignor::Uniform.assign(&now);
        check(&now, &assigned);
        check_no_better_neighbour(&now, &assigned);
    }

    #[test]
    fn uniform_assigned_again_moves_nothing(counts in counts(), subscriptions in subscriptions()) {
        let problem = problem(&counts, &subscriptions);
        let assigned = Assignor::Uniform.assign(&problem);
        prop_assert_eq!(&Assignor::Uniform.assign(&after(problem, &assigned)), &assigned);
    }

    #[test]
    fn when_a_member_leaves_only_its_partitions_move(counts in counts(), members in 2_usize..9, who in 0_usize..9) {
        let problem = equal(&counts, members);
        let before = Assignor::Uniform.assign(&problem);
        let mut left = after(problem, &before);
        let gone = left.members.keys().nth(who % members).unwrap().clone();
        left.members.remove(&gone);
        let now = Assignor::Uniform.assign(&left);
        check(&left, &now);
        prop_assert_eq!(moved(&before, &now), before[&gone].len());
    }

    #[test]
    fn when_a_member_comes_only_its_share_moves(counts in counts(), members in 1_usize..9) {
        let before = Assignor::Uniform.assign(&equal(&counts, members));
        let problem = after(equal(&counts, members + 1), &before);
        let now = Assignor::Uniform.assign(&problem);
        check(&problem, &now);
        let total: usize = loads(&now).iter().sum();
        prop_assert_eq!(moved(&before, &now), total / (members + 1), "{:?} → {:?}", loads(&before), loads(&now));
    }

    #[test]
    fn range_gives_equal_topics_alike(count in 1_i32..20, topics in 1_usize..5, members in 1_usize..9) {
        let problem = equal(&vec![count; topics], members);
        let assigned = Assignor::Range.assign(&problem);
        for has in assigned.values() {
            let of: Vec<Vec<i32>> = (0..topics)
                .map(|t| has.iter().filter(|tp| tp.topic == topic(t)).map(|tp| tp.partition.0).collect())
                .collect();
            prop_assert!(of.iter().all(|numbers| *numbers == of[0]), "co-partitioned");
            prop_assert!(of[0].windows(2).all(|pair| pair[1] == pair[0] + 1), "one range");
            let each = count as usize / members;
            prop_assert!((each..=each + 1).contains(&of[0].len()));
        }
    }
}

#[test]
fn uniform_passes_partitions_on_where_no_direct_move_helps() {
    // m0 has all of topic 0 and shares it with m1; m1 shares topic 1 with m2, which has nothing.
    let mut problem = problem(&[2, 4], &[[0].into(), [0, 1].into(), [1].into()]);
    let with = |topic_n: usize, numbers: &[i32]| -> Partitions {
        numbers.iter().map(|n| tp(topic(topic_n), *n)).collect()
    };
    problem.members.get_mut("m00").unwrap().previous = with(0, &[0, 1]);
    problem.members.get_mut("m01").unwrap().previous = with(1, &[0, 1, 2, 3]);
    let assigned = Assignor::Uniform.assign(&problem);
    assert_eq!(loads(&assigned), [2, 2, 2]);
    assert_eq!(assigned["m00"], with(0, &[0, 1]), "what need not move does not");

    problem.topics.insert(topic(0), 4);
    problem.members.get_mut("m00").unwrap().previous = with(0, &[0, 1, 2, 3]);
    problem.members.get_mut("m01").unwrap().previous = with(1, &[0, 1]);
    problem.topics.insert(topic(1), 2);
    let assigned = Assignor::Uniform.assign(&problem);
    assert_eq!(loads(&assigned), [2, 2, 2], "topic 0 to m1, topic 1 on to m2");
}

#[test]
fn a_static_member_gets_its_ranges_whatever_its_member_id() {
    let order = |ids: [&str; 2]| {
        let members = ids.iter().zip(["i0", "i1"]).map(|(id, instance)| {
            let subscribed = Arc::new(BTreeSet::from([topic(0)]));
            let assignee = Assignee { instance_id: Some(instance.into()), subscribed, ..Assignee::default() };
            (Arc::from(*id), assignee)
        });
        let problem = Problem { topics: [(topic(0), 4)].into(), members: members.collect() };
        let assigned = Assignor::Range.assign(&problem);
        ids.map(|id| assigned[id].iter().map(|tp| tp.partition.0).collect::<Vec<_>>())
    };
    assert_eq!(order(["a", "b"]), [vec![0, 1], vec![2, 3]]);
    assert_eq!(order(["z", "b"]), [vec![0, 1], vec![2, 3]]);
}
