//! What every assignor owes: complete, disjoint, balanced, deterministic; and the sticky one: least
//! movement, and no partition with a new owner while another still claims it.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use strandline_wire::assign::{
    ASSIGNORS, Assignments, Assignor, CooperativeSticky, Range, RebalanceProtocol, RoundRobin, Subscription,
    TopicPartition, assignor,
};

type Topics = BTreeMap<String, i32>;
type Members = BTreeMap<String, Subscription>;

fn topics() -> impl Strategy<Value = Topics> {
    prop::collection::btree_map("[a-e]", 0..12i32, 1..5)
}

/// Members with any subscriptions, also to topics that do not exist, some of them static.
fn members() -> impl Strategy<Value = Members> {
    let one = (prop::collection::btree_set("[a-f]", 0..5), any::<bool>());
    prop::collection::btree_map("m[0-9]{2}", one, 1..9).prop_map(|members| {
        let member = |(id, (topics, is_static)): (String, (BTreeSet<String>, bool))| {
            let instance_id = is_static.then(|| format!("instance of {id}"));
            (id, Subscription { topics: topics.into_iter().collect(), instance_id, ..Default::default() })
        };
        members.into_iter().map(member).collect()
    })
}

/// Members who all subscribe to every topic.
fn equal_members(topics: &Topics, count: usize) -> Members {
    (0..count)
        .map(|n| {
            let topics = topics.keys().cloned().collect();
            (format!("m{n:02}"), Subscription { topics, ..Default::default() })
        })
        .collect()
}

fn owners(assignments: &Assignments) -> BTreeMap<TopicPartition, String> {
    let mut owners = BTreeMap::new();
    for (member, partitions) in assignments {
        for partition in partitions {
            let before = owners.insert(partition.clone(), member.clone());
            assert_eq!(before, None, "{partition:?} is assigned twice");
        }
    }
    owners
}

/// Every partition of a topic that someone subscribes to.
fn wanted(topics: &Topics, members: &Members) -> BTreeSet<TopicPartition> {
    let subscribed: BTreeSet<_> = members.values().flat_map(|m| &m.topics).collect();
    topics
        .iter()
        .filter(|(topic, _)| subscribed.contains(topic))
        .flat_map(|(topic, count)| (0..*count).map(move |p| (topic.clone(), p)))
        .collect()
}

fn spread(assignments: &Assignments) -> usize {
    let counts = || assignments.values().map(Vec::len);
    counts().max().unwrap_or(0) - counts().min().unwrap_or(0)
}

/// One cooperative round as members live it: each keeps what it held and was given again, adds what is
/// new, and says so when it joins again. Returns whether anything was revoked (then all join again).
fn live_round(topics: &Topics, members: &mut Members, generation: i32) -> (Assignments, bool) {
    let assignments = CooperativeSticky.assign(topics, members);
    for (partition, owner) in owners(&assignments) {
        for (other, subscription) in members.iter().filter(|(id, _)| **id != owner) {
            assert!(
                !subscription.owned_partitions.contains(&partition),
                "{partition:?} goes to {owner} while {other} claims it"
            );
        }
    }
    let mut revoked = false;
    for (id, mine) in &assignments {
        let subscription = members.get_mut(id).expect("assigned to a member");
        revoked |= subscription.owned_partitions.iter().any(|p| !mine.contains(p));
        subscription.owned_partitions = mine.clone();
        subscription.generation = Some(generation);
    }
    (assignments, revoked)
}

/// Rounds until nobody has to give anything up.
fn settle(topics: &Topics, members: &mut Members, generation: &mut i32) -> Assignments {
    for _ in 0..3 {
        *generation += 1;
        let (assignments, revoked) = live_round(topics, members, *generation);
        if !revoked {
            return assignments;
        }
    }
    panic!("a cooperative rebalance takes more than three rounds");
}

/// Partitions that had an owner who is still there and now have another.
fn moved(before: &Assignments, after: &Assignments) -> usize {
    let after_owners = owners(after);
    owners(before)
        .iter()
        .filter(|(p, owner)| {
            after.contains_key(*owner) && after_owners.get(*p).is_some_and(|now| now != *owner)
        })
        .count()
}

proptest! {
    #[test]
    fn every_partition_has_exactly_one_owner_who_subscribes_to_it(topics in topics(), members in members()) {
        for assignor in ASSIGNORS {
            let assignments = assignor.assign(&topics, &members);
            prop_assert!(assignments.keys().eq(members.keys()), "every member has an entry");
            let owners = owners(&assignments);
            prop_assert_eq!(owners.keys().cloned().collect::<BTreeSet<_>>(), wanted(&topics, &members));
            for ((topic, _), owner) in &owners {
                prop_assert!(members[owner].topics.contains(topic));
            }
            for partitions in assignments.values() {
                prop_assert!(partitions.is_sorted());
            }
        }
    }

    #[test]
    fn members_with_equal_subscriptions_differ_by_at_most_one(topics in topics(), count in 1..9usize) {
        let members = equal_members(&topics, count);
        for assignor in [&RoundRobin as &dyn Assignor, &CooperativeSticky] {
            prop_assert!(spread(&assignor.assign(&topics, &members)) <= 1, "{}", assignor.name());
        }
        // range balances each topic by itself
        let ranges = Range.assign(&topics, &members);
        for topic in topics.keys() {
            let of_topic = ranges.iter().map(|(id, mine)| {
                (id.clone(), mine.iter().filter(|(t, _)| t == topic).cloned().collect())
            });
            prop_assert!(spread(&of_topic.collect()) <= 1);
        }
    }

    #[test]
    fn ranges_are_consecutive(topics in topics(), members in members()) {
        for partitions in Range.assign(&topics, &members).values() {
            for pair in partitions.windows(2) {
                prop_assert!(pair[0].0 != pair[1].0 || pair[0].1 + 1 == pair[1].1);
            }
        }
    }

    #[test]
    fn a_settled_group_stays_as_it_is(topics in topics(), mut members in members()) {
        let mut generation = 0;
        let first = settle(&topics, &mut members, &mut generation);
        let second = settle(&topics, &mut members, &mut generation);
        prop_assert_eq!(first, second);
    }

    #[test]
    fn a_cooperative_group_gives_nothing_away_that_is_still_claimed_and_settles_complete(
        mut topics in topics(),
        mut members in members(),
        steps in prop::collection::vec((0..4u8, any::<prop::sample::Index>(), 0..12i32), 1..8),
    ) {
        let mut generation = 0;
        let mut newcomers = 0;
        settle(&topics, &mut members, &mut generation);
        for (kind, which, number) in steps {
            let id = members.keys().nth(which.index(members.len())).expect("not empty").clone();
            match kind {
                // A member goes (the last one stays).
                0 if members.len() > 1 => drop(members.remove(&id)),
                // Another comes with the same subscription.
                1 => {
                    newcomers += 1;
                    let topics = members[&id].topics.clone();
                    members.insert(format!("n{newcomers}"), Subscription { topics, ..Default::default() });
                }
                // One missed generations: it claims what it had, and may have forgotten when.
                2 => {
                    let mut zombie = members[&id].clone();
                    live_round(&topics, &mut members, generation + 1);
                    zombie.generation = zombie.generation.filter(|_| number % 2 == 0);
                    members.insert(id, zombie);
                    generation += 1;
                }
                // A topic changes its size, or goes.
                _ => {
                    let topic = topics.keys().nth(which.index(topics.len())).expect("not empty").clone();
                    topics.insert(topic, number);
                }
            }
            let assignments = settle(&topics, &mut members, &mut generation);
            let owned: BTreeSet<_> = owners(&assignments).into_keys().collect();
            prop_assert_eq!(owned, wanted(&topics, &members));
        }
    }

    #[test]
    fn when_a_member_leaves_or_joins_only_its_own_share_moves(
        topics in topics(),
        count in 2..9usize,
        leaver in any::<prop::sample::Index>(),
    ) {
        let mut members = equal_members(&topics, count);
        let mut generation = 0;
        let before = settle(&topics, &mut members, &mut generation);

        let mut fewer = members.clone();
        let leaver = fewer.keys().nth(leaver.index(count)).expect("not empty").clone();
        fewer.remove(&leaver);
        let after = settle(&topics, &mut fewer, &mut generation);
        prop_assert_eq!(moved(&before, &after), 0, "the others keep what they have");
        prop_assert!(spread(&after) <= 1);

        let mut more = members;
        more.insert("new".into(), Subscription { topics: topics.keys().cloned().collect(), ..Default::default() });
        let after = settle(&topics, &mut more, &mut generation);
        prop_assert_eq!(moved(&before, &after), after["new"].len(), "nothing moves between the others");
        prop_assert!(spread(&after) <= 1);
    }

    #[test]
    fn unequal_subscriptions_are_balanced_as_far_as_they_allow(topics in topics(), mut members in members()) {
        let mut generation = 0;
        let assignments = settle(&topics, &mut members, &mut generation);
        // Who can be reached from whom by members each passing one partition on.
        for from in members.keys() {
            let mut reached = BTreeSet::from([from.clone()]);
            let mut queue = vec![from.clone()];
            while let Some(giver) = queue.pop() {
                for (topic, _) in &assignments[&giver] {
                    for (taker, subscription) in &members {
                        if subscription.topics.contains(topic) && reached.insert(taker.clone()) {
                            queue.push(taker.clone());
                        }
                    }
                }
            }
            for to in reached {
                let (from_has, to_has) = (assignments[from].len(), assignments[&to].len());
                prop_assert!(to_has + 1 >= from_has, "{from} has {from_has}, {to} only {to_has}");
            }
        }
    }
}

fn subscription(topics: &[&str]) -> Subscription {
    Subscription { topics: topics.iter().map(|t| t.to_string()).collect(), ..Default::default() }
}

fn show(assignments: &Assignments) -> String {
    let member = |(id, mine): (&String, &Vec<TopicPartition>)| {
        let mine: Vec<_> = mine.iter().map(|(t, p)| format!("{t}{p}")).collect();
        format!("{id}: {}", mine.join(" "))
    };
    assignments.iter().map(member).collect::<Vec<_>>().join("; ")
}

#[test]
fn assignments_are_those_of_kafkas_documentation() {
    let topics = Topics::from([("a".into(), 3), ("b".into(), 3)]);
    let members =
        Members::from([("c0".into(), subscription(&["a", "b"])), ("c1".into(), subscription(&["a", "b"]))]);
    // The examples of RangeAssignor's and RoundRobinAssignor's pages.
    assert_eq!(show(&Range.assign(&topics, &members)), "c0: a0 a1 b0 b1; c1: a2 b2");
    assert_eq!(show(&RoundRobin.assign(&topics, &members)), "c0: a0 a2 b1; c1: a1 b0 b2");
    let topics = Topics::from([("a".into(), 1), ("b".into(), 2), ("c".into(), 3)]);
    let members = Members::from([
        ("c0".into(), subscription(&["a"])),
        ("c1".into(), subscription(&["a", "b"])),
        ("c2".into(), subscription(&["a", "b", "c"])),
    ]);
    assert_eq!(show(&RoundRobin.assign(&topics, &members)), "c0: a0; c1: b0; c2: b1 c0 c1 c2");
    // … and of StickyAssignor's.
    assert_eq!(show(&CooperativeSticky.assign(&topics, &members)), "c0: a0; c1: b0 b1; c2: c0 c1 c2");
}

#[test]
fn static_members_come_first_in_the_order_of_their_instances() {
    let topics = Topics::from([("a".into(), 4)]);
    let named = |instance: &str| Subscription { instance_id: Some(instance.into()), ..subscription(&["a"]) };
    let members = Members::from([
        ("1-dynamic".into(), subscription(&["a"])),
        ("2".into(), named("z")),
        ("3".into(), named("y")),
    ]);
    assert_eq!(show(&Range.assign(&topics, &members)), "1-dynamic: a3; 2: a2; 3: a0 a1");
}

#[test]
fn of_conflicting_claims_the_highest_generation_counts_and_a_tie_counts_for_nobody() {
    let topics = Topics::from([("a".into(), 2)]);
    let claiming = |generation, partitions: &[i32]| Subscription {
        owned_partitions: partitions.iter().map(|p| ("a".to_string(), *p)).collect(),
        generation,
        ..subscription(&["a"])
    };
    // The zombie of generation 3 sorts first, and yet the owner keeps both until it has given one up.
    let members =
        Members::from([("m1".into(), claiming(Some(3), &[0, 1])), ("m2".into(), claiming(Some(5), &[0, 1]))]);
    assert_eq!(show(&CooperativeSticky.assign(&topics, &members)), "m1: ; m2: a0");
    let members =
        Members::from([("m1".into(), claiming(Some(5), &[0])), ("m2".into(), claiming(Some(5), &[0]))]);
    let assignments = CooperativeSticky.assign(&topics, &members);
    assert_eq!(owners(&assignments).keys().map(|(_, p)| *p).collect::<Vec<_>>(), [1], "both give up 0 first");
    // A generation may come in the user data only, as from a version 1 subscription.
    let user_data = CooperativeSticky.subscription_user_data(Some(5));
    let old_format = Subscription { user_data, ..claiming(None, &[0, 1]) };
    let members = Members::from([("m1".into(), claiming(Some(3), &[0, 1])), ("m2".into(), old_format)]);
    assert_eq!(show(&CooperativeSticky.assign(&topics, &members)), "m1: ; m2: a0");
}

#[test]
fn assignors_are_found_by_kafkas_names() {
    for (name, protocol) in [
        ("range", RebalanceProtocol::Eager),
        ("roundrobin", RebalanceProtocol::Eager),
        ("cooperative-sticky", RebalanceProtocol::Cooperative),
    ] {
        let found = assignor(name).expect(name);
        assert_eq!((found.name(), found.protocol()), (name, protocol));
    }
    assert!(assignor("sticky").is_none());
}

#[test]
fn a_large_group_is_assigned_without_undue_work() {
    // 60 members whose subscriptions overlap pairwise, so that balance needs chains. Bounded by moves, not
    // by time: this finishes at once, or (were the search exponential) not at all.
    let topics: Topics = (0..60).map(|t| (format!("t{t:02}"), if t == 0 { 600 } else { 5 })).collect();
    let mut members: Members = (0..60)
        .map(|m| {
            let topics = [format!("t{m:02}"), format!("t{:02}", (m + 1) % 60)];
            (format!("m{m:02}"), Subscription { topics: topics.into(), ..Default::default() })
        })
        .collect();
    let assignments = settle(&topics, &mut members, &mut 0);
    assert_eq!(owners(&assignments).len(), 600 + 59 * 5);
}
