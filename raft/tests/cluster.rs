//! Three nodes and more, over real sockets: elections, proposals, failures, membership.
// Reason: see common.
#![allow(clippy::disallowed_methods)]

mod common;

use common::{Cluster, PATIENCE, brokers, registration};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strandline_metadata::{Command, CommittedOffset, Delta, Rejection, Response};
use strandline_raft::{MembershipError, ProposeError, RaftConfig};
use strandline_record::{BrokerId, Offset};
use uuid::Uuid;

fn plain(_: &mut RaftConfig) {}

/// Snapshots after a few entries, and next to nothing kept behind them.
fn eager_snapshots(config: &mut RaftConfig) {
    config.snapshot_entries = 20;
    config.keep_entries = 5;
    config.log.segment_bytes = 4096;
}

/// Nobody campaigns by itself within the test.
fn patient(config: &mut RaftConfig) {
    config.election_min_ms = 60_000;
    config.election_max_ms = 120_000;
}

#[test]
fn a_proposal_from_a_follower_is_applied_everywhere() {
    let cluster = Cluster::real(3, plain);
    let follower = cluster.follower();
    let Response::Registered { epoch } = cluster.propose(follower, registration(7)) else { panic!() };
    for id in cluster.running() {
        let image = cluster.up_to_date(id);
        assert_eq!(image.broker(BrokerId(7)).map(|b| b.epoch), Some(epoch), "on node {id}");
    }
    assert_eq!(
        cluster.propose(follower, Command::FormCluster { cluster_id: Uuid::from_u128(10), now_ms: 2 }),
        Response::Rejected(Rejection::AlreadyFormed)
    );
}

#[test]
fn a_follower_reads_what_was_answered_elsewhere_just_before() {
    let cluster = Cluster::real(3, plain);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    for number in 1..=20 {
        assert!(cluster.register(leader, number));
        assert!(brokers(&cluster.up_to_date(follower)).contains(&number));
    }
}

#[test]
fn an_answered_proposal_is_in_the_proposers_own_image_on_the_leader() {
    let cluster = Cluster::real(3, plain);
    let leader = cluster.leader();
    for number in 1..=20 {
        assert!(cluster.register(leader, number));
        assert!(brokers(&cluster.handle(leader).image()).contains(&number));
    }
}

#[test]
fn a_receiver_gets_the_merged_delta_since_the_image_it_saw() {
    let cluster = Cluster::real(1, plain);
    let mut images = cluster.handle(1).images();
    let (seen, delta) = cluster.runtime.block_on(images.changed());
    assert!(delta.full);
    for number in 1..=5 {
        assert!(cluster.register(1, number));
    }
    let (image, delta) = cluster.runtime.block_on(images.changed());
    assert!(image.index > seen.index);
    assert_eq!(brokers(&image), [1, 2, 3, 4, 5]);
    let expected: BTreeSet<BrokerId> = (1..=5).map(BrokerId).collect();
    assert_eq!(delta, Delta { brokers: expected, ..Delta::default() });
    assert!(images.take().is_none());
}

#[test]
fn the_others_go_on_without_the_leader_and_it_catches_up_later() {
    let mut cluster = Cluster::real(3, plain);
    assert!(cluster.register(1, 1));
    let lost = cluster.leader();
    cluster.node(lost).kill();
    let next = cluster.leader();
    assert_ne!(next, lost);
    assert_eq!(
        cluster.propose(cluster.follower(), registration(2)),
        Response::Registered { epoch: cluster.up_to_date(next).broker(BrokerId(2)).unwrap().epoch }
    );
    cluster.node(lost).start();
    assert_eq!(brokers(&cluster.up_to_date(lost)), [1, 2]);
}

#[test]
fn a_lost_leader_is_replaced_before_any_election_timeout_when_the_loss_is_noticed() {
    let mut cluster = Cluster::real(3, plain);
    let lost = cluster.leader();
    // From now on time alone elects nobody.
    for id in cluster.running() {
        cluster.node(id).tune = patient;
    }
    let followers: Vec<u64> = cluster.running().into_iter().filter(|id| *id != lost).collect();
    for id in &followers {
        cluster.node(*id).kill();
        cluster.node(*id).start();
    }
    assert_eq!(cluster.leader(), lost);
    assert!(cluster.register(lost, 1));
    // Either may be elected: none lacks an entry.
    for id in &followers {
        cluster.up_to_date(*id);
    }
    cluster.node(lost).kill();
    // As a node does: every connection that cannot be made says so again.
    for _ in 0..10 {
        for id in &followers {
            cluster.handle(*id).peer_lost(lost);
        }
        std::thread::sleep(Duration::from_millis(300));
        let led_by = |id: &u64| cluster.handle(*id).leader().is_some_and(|(leader, _)| leader != lost);
        if followers.iter().all(led_by) {
            break;
        }
    }
    let next = cluster.leader();
    assert!(followers.contains(&next));
    assert!(cluster.register(next, 2));
    assert_eq!(brokers(&cluster.up_to_date(next)), [1, 2]);
}

#[test]
fn a_false_alarm_about_the_leader_changes_nothing() {
    let cluster = Cluster::real(3, plain);
    assert!(cluster.register(1, 1));
    let leader = cluster.leader();
    let term = cluster.handle(leader).leader();
    for id in cluster.running() {
        cluster.handle(id).peer_lost(leader);
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(cluster.handle(leader).leader(), term);
    assert!(cluster.register(cluster.follower(), 2));
    for id in cluster.running() {
        assert_eq!(brokers(&cluster.up_to_date(id)), [1, 2]);
    }
}

#[test]
fn without_a_majority_a_proposal_is_not_sent_or_unknown_and_later_ones_succeed() {
    let mut cluster = Cluster::real(3, plain);
    let leader = cluster.leader();
    let others: Vec<u64> = cluster.running().into_iter().filter(|id| *id != leader).collect();
    others.iter().for_each(|id| cluster.node(*id).kill());
    let handle = cluster.handle(leader);
    let short = Duration::from_millis(300);
    let stuck = cluster.runtime.block_on(handle.propose(registration(1), short));
    assert!(matches!(stuck, Err(ProposeError::Unknown(_))), "{stuck:?}");
    let behind_it = cluster.runtime.block_on(handle.propose(registration(2), short));
    assert!(behind_it.is_err());
    assert!(cluster.runtime.block_on(handle.ensure_linearizable(short)).is_err());
    others.iter().for_each(|id| cluster.node(*id).start());
    assert!(matches!(cluster.propose(leader, registration(3)), Response::Registered { .. }));
}

#[test]
fn a_node_that_knows_no_leader_answers_not_sent() {
    let mut cluster = Cluster::real(1, plain);
    cluster.add_node(2, plain);
    let handle = cluster.handle(2);
    assert!(!cluster.runtime.block_on(handle.is_initialized()));
    let answer = cluster.runtime.block_on(handle.propose(registration(1), Duration::from_millis(200)));
    assert!(matches!(answer, Err(ProposeError::NotSent(_))), "{answer:?}");
}

#[test]
fn after_all_nodes_are_killed_nothing_answered_is_missing() {
    let mut cluster = Cluster::real(3, plain);
    for number in 1..=30 {
        assert!(cluster.register(1 + number % 3, number));
    }
    for round in 0..2 {
        cluster.nodes.values_mut().for_each(common::TestNode::kill);
        cluster.nodes.values_mut().for_each(common::TestNode::start);
        for id in cluster.running() {
            assert_eq!(brokers(&cluster.up_to_date(id)), (1..=30).collect::<Vec<_>>(), "round {round}");
        }
    }
}

#[test]
fn after_all_machines_lose_power_nothing_answered_is_missing() {
    let mut cluster = Cluster::simulated(3, eager_snapshots);
    let mut answered = BTreeSet::new();
    for round in 0..6 {
        for number in round * 12..(round + 1) * 12 {
            if cluster.register(1 + number % 3, number) {
                answered.insert(number);
            }
        }
        cluster.nodes.values_mut().for_each(common::TestNode::power_loss);
        cluster.nodes.values_mut().for_each(common::TestNode::start);
        for id in cluster.running() {
            let found: BTreeSet<u64> = brokers(&cluster.up_to_date(id)).into_iter().collect();
            assert!(answered.is_subset(&found), "node {id}, round {round}: {answered:?} of {found:?}");
        }
    }
    assert!(answered.len() > 50);
}

#[test]
fn many_small_commits_cost_few_log_entries() {
    let cluster = Cluster::real(3, plain);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let before = cluster.handle(leader).metrics().last_index.unwrap();
    let handle = cluster.handle(follower);
    let commits = 1000_u64;
    cluster.runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..commits {
            let handle = handle.clone();
            let offset = CommittedOffset {
                offset: Offset(number as i64),
                leader_epoch: None,
                metadata: Some("done".into()),
                commit_time_ms: 0,
            };
            let tp = strandline_metadata::command::tp(strandline_record::TopicId(Uuid::from_u128(1)), 0);
            let command = Command::CommitOffsets {
                group: format!("group-{number}").into(),
                member: None,
                offsets: vec![(tp, offset)],
            };
            tasks.spawn(async move { handle.propose(command, PATIENCE).await });
        }
        while let Some(answer) = tasks.join_next().await {
            assert_eq!(answer.unwrap(), Ok(Response::Done));
        }
    });
    let entries = cluster.handle(leader).metrics().last_index.unwrap() - before;
    assert!(entries < commits / 20, "{commits} commits took {entries} log entries");
}

#[test]
fn each_proposer_gets_its_own_answer_out_of_a_shared_entry() {
    let cluster = Cluster::real(3, plain);
    let follower = cluster.handle(cluster.follower());
    cluster.runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..200_u64 {
            let handle = follower.clone();
            tasks.spawn(async move {
                let one = handle.propose(registration(number), PATIENCE).await.unwrap();
                assert!(matches!(one, Response::Registered { .. }));
                let batch = Command::Batch(vec![
                    Command::UnfenceBroker { id: BrokerId(number), epoch: 0.into() },
                    Command::AllocateProducerIds { count: 3 },
                    Command::UnregisterBroker { id: BrokerId(number) },
                ]);
                let Ok(Response::Batch(answers)) = handle.propose(batch, PATIENCE).await else { panic!() };
                let [stale, ids, done] = &answers[..] else { panic!("{answers:?}") };
                assert!(matches!(stale, Response::Rejected(Rejection::StaleBrokerEpoch { .. })), "{stale:?}");
                let Response::ProducerIds { first, count: 3 } = ids else { panic!("{ids:?}") };
                assert_eq!(*done, Response::Done);
                *first
            });
        }
        let mut blocks = BTreeSet::new();
        while let Some(first) = tasks.join_next().await {
            assert!(blocks.insert(first.unwrap()), "a block of producer ids was given out twice");
        }
        assert_eq!(blocks.into_iter().collect::<Vec<_>>(), (0..600).step_by(3).collect::<Vec<i64>>());
    });
}

#[test]
fn a_learner_added_after_the_log_was_purged_catches_up_by_snapshot() {
    for simulated in [false, true] {
        let mut cluster = match simulated {
            false => Cluster::real(3, eager_snapshots),
            true => Cluster::simulated(3, eager_snapshots),
        };
        let leader = cluster.leader();
        for number in 1..=100 {
            assert!(cluster.register(leader, number));
        }
        cluster.eventually("a purged log", || cluster.handle(leader).metrics().purged.filter(|p| *p > 20));
        let leader = cluster.handle(leader);
        let address = cluster.add_node(4, eager_snapshots);
        cluster.runtime.block_on(leader.add_learner(4, address.clone())).unwrap();
        assert_eq!(leader.learners().get(&4), Some(&address));
        let image = cluster.runtime.block_on(async {
            let index = leader.image().index;
            tokio::time::timeout(PATIENCE, cluster.handle(4).images().wait_applied(index)).await.unwrap()
        });
        assert_eq!(brokers(&image), (1..=100).collect::<Vec<_>>());
        assert!(cluster.handle(4).metrics().snapshot.is_some(), "it came by snapshot");

        // And it stays so after a restart; then it gets a vote.
        cluster.node(4).kill();
        cluster.node(4).start();
        assert_eq!(brokers(&cluster.up_to_date(4)), (1..=100).collect::<Vec<_>>());
        let leader = cluster.handle(cluster.leader());
        cluster.runtime.block_on(leader.promote(BTreeSet::from([4]))).unwrap();
        assert_eq!(leader.membership().voters, BTreeSet::from([1, 2, 3, 4]));
    }
}

#[test]
fn leadership_is_handed_over_on_request() {
    let cluster = Cluster::real(3, plain);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let handle = cluster.handle(leader);
    assert!(matches!(cluster.runtime.block_on(handle.transfer_leader(9)), Err(MembershipError::Refused(_))));
    assert_eq!(
        cluster.runtime.block_on(cluster.handle(follower).transfer_leader(follower)),
        Err(MembershipError::NotLeader(Some(leader)))
    );
    cluster.runtime.block_on(handle.transfer_leader(follower)).unwrap();
    assert_eq!(cluster.leader(), follower);
    assert!(cluster.register(leader, 1));
}

#[test]
fn a_removed_voter_no_longer_counts() {
    let mut cluster = Cluster::real(3, plain);
    let (leader, gone) = (cluster.leader(), cluster.follower());
    let handle = cluster.handle(leader);
    cluster.runtime.block_on(handle.remove(gone)).unwrap();
    // It was not told, and knows the leader still: what it asks for is not proposed.
    let removed = cluster.handle(gone);
    let late = cluster.runtime.block_on(removed.propose(registration(9), Duration::from_millis(300)));
    // Whether it hears the refusal in time or not.
    assert!(late.is_err(), "{late:?}");
    cluster.node(gone).kill();
    assert_eq!(handle.membership().voters, cluster.running().into_iter().collect());
    assert!(cluster.register(leader, 1));
    assert_eq!(brokers(&cluster.up_to_date(leader)), [1], "what a removed node asked for was proposed");
    // Removing what is no member changes nothing.
    cluster.runtime.block_on(handle.remove(gone)).unwrap();
}

#[test]
fn forming_twice_is_refused() {
    let cluster = Cluster::real(3, plain);
    for id in cluster.running() {
        let members = cluster.nodes.iter().map(|(id, node)| (*id, node.address.to_string())).collect();
        let again = cluster.runtime.block_on(cluster.handle(id).initialize(members));
        assert!(matches!(again, Err(MembershipError::Refused(_))), "{again:?}");
    }
}

#[test]
fn garbage_where_the_applied_state_lies_costs_nothing_but_a_rebuild() {
    type Ruin = fn(&std::path::Path);
    let ruins: [(&str, Ruin); 5] = [
        ("every file overwritten", |dir| {
            for file in std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).filter(|p| p.is_file()) {
                let length = std::fs::metadata(&file).unwrap().len() as usize;
                std::fs::write(file, vec![0xA5; length.max(64)]).unwrap();
            }
        }),
        ("cut in half", |dir| {
            let db = dir.join("db");
            let length = std::fs::metadata(&db).unwrap().len();
            std::fs::OpenOptions::new().write(true).open(db).unwrap().set_len(length / 2).unwrap();
        }),
        ("bits flipped", |dir| {
            let db = dir.join("db");
            let mut bytes = std::fs::read(&db).unwrap();
            bytes.iter_mut().step_by(97).for_each(|b| *b ^= 0x10);
            std::fs::write(db, bytes).unwrap();
        }),
        ("a file instead of the directory", |dir| {
            std::fs::remove_dir_all(dir).unwrap();
            std::fs::write(dir, b"not a directory").unwrap();
        }),
        ("gone", |dir| std::fs::remove_dir_all(dir).unwrap()),
    ];
    let mut cluster = Cluster::real(1, eager_snapshots);
    for number in 1..=50 {
        assert!(cluster.register(1, number));
    }
    for (what, ruin) in ruins {
        cluster.node(1).kill();
        ruin(&cluster.nodes[&1].place.sled_dir());
        cluster.node(1).start();
        assert_eq!(brokers(&cluster.up_to_date(1)), (1..=50).collect::<Vec<_>>(), "{what}");
    }
}

#[test]
fn concurrent_proposals_survive_leaders_that_come_and_go() {
    let mut cluster = Cluster::real(3, plain);
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut writers = Vec::new();
    for id in 1..=3_u64 {
        let handle = cluster.handle(id);
        let (done, count) = (done.clone(), count.clone());
        writers.push(cluster.runtime.spawn(async move {
            let mut answered = Vec::new();
            for number in (id * 1000)..(id * 1000 + 1000) {
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                if let Ok(Response::Registered { .. }) = handle.propose(registration(number), PATIENCE).await
                {
                    answered.push(number);
                    count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
            answered
        }));
    }
    for _ in 0..4 {
        let leader = cluster.leader();
        let to = cluster.follower();
        let _ = cluster.runtime.block_on(cluster.handle(leader).transfer_leader(to));
        // Each leader has some to answer before it goes; how fast is not the question.
        let (before, until) = (count.load(std::sync::atomic::Ordering::Relaxed), Instant::now() + PATIENCE);
        while count.load(std::sync::atomic::Ordering::Relaxed) < before + 10 {
            assert!(Instant::now() < until, "nothing is answered after a hand-over");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let answered: Vec<u64> = writers.into_iter().flat_map(|w| cluster.runtime.block_on(w).unwrap()).collect();
    let leader = cluster.leader();
    cluster.node(leader).kill();
    for id in cluster.running() {
        let found: BTreeSet<u64> = brokers(&cluster.up_to_date(id)).into_iter().collect();
        assert!(answered.iter().all(|number| found.contains(number)));
    }
}
