use super::*;
use serde_json::Value;
use strandline_client::{PartitionDescription, TopicId};

const SECOND: Duration = Duration::from_secs(1);

fn broker(id: u64) -> Broker {
    Broker {
        id,
        grpc: format!("node-{id}:7070"),
        peer: String::new(),
        kafka: String::new(),
        http: String::new(),
        rack: String::new(),
        fenced: false,
        draining: false,
        epoch: 1,
    }
}

fn partition(number: i32, leader: u64) -> PartitionDescription {
    PartitionDescription {
        partition: number,
        leader: Some(leader),
        leader_epoch: 1,
        partition_epoch: 1,
        replicas: vec![1, 2, 3],
        isr: vec![1, 2, 3],
        elr: Vec::new(),
        reassignment: Vec::new(),
    }
}

fn topic(name: &str, partitions: i32) -> TopicDescription {
    TopicDescription {
        name: name.into(),
        id: TopicId::default(),
        partitions: (0..partitions).map(|number| partition(number, number as u64 % 3 + 1)).collect(),
        configs: BTreeMap::new(),
    }
}

fn at(index: u64, topics: Vec<TopicDescription>) -> NodeView {
    NodeView {
        cluster_id: "c".into(),
        metadata_index: index,
        controller: Some(1),
        brokers: vec![broker(1), broker(2), broker(3)],
        topics,
    }
}

/// All three answer at this index.
fn all(index: u64) -> BTreeMap<u64, Result<NodeView, Silence>> {
    (1..=3).map(|id| (id, Ok(at(index, Vec::new())))).collect()
}

fn refused() -> Result<NodeView, Silence> {
    Err(Silence { error: "connection refused".into(), timed_out: false })
}

fn slow() -> Result<NodeView, Silence> {
    Err(Silence { error: "did not answer".into(), timed_out: true })
}

fn started(partitions: i32) -> Picture {
    let mut picture = Picture::default();
    picture.heard(0, BTreeMap::new(), vec![at(1, Vec::new())]).expect("the cluster was found");
    picture.has_topics(0, at(1, vec![topic("t", partitions)])).expect("it has a topic");
    picture
}

fn value(message: Option<Vec<u8>>) -> Value {
    serde_json::from_slice(&message.expect("a message")).unwrap()
}

fn kinds(message: &Value) -> Vec<String> {
    let event = |event: &Value| {
        let more = event.get("state").or(event.get("partition")).or(event.get("more")).or(event.get("to"));
        format!("{} {}", event["kind"].as_str().unwrap(), more.unwrap())
    };
    message["events"].as_array().unwrap().iter().map(event).collect()
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

#[test]
fn a_node_that_refuses_is_silent_at_once_and_the_clusters_word_comes_later() {
    let mut picture = started(3);
    assert_eq!(picture.heard(100, all(1), Vec::new()), None, "nothing new is no message");
    let mut answers = all(1);
    answers.insert(3, refused());
    let change = value(picture.heard(300, answers.clone(), Vec::new()));
    let node = &change["cluster"]["nodes"][2];
    assert_eq!((&node["state"], &node["answers"]), (&"serving".into(), &false.into()), "{node}");
    assert_eq!((&node["silentSince"], &node["error"]), (&300.into(), &"connection refused".into()));
    assert_eq!(kinds(&change), ["node \"silent\""]);
    assert_eq!(picture.heard(500, answers.clone(), Vec::new()), None, "it is still silent");

    let mut fenced = at(2, Vec::new());
    fenced.brokers[2].fenced = true;
    answers.insert(1, Ok(fenced));
    let change = value(picture.heard(700, answers, Vec::new()));
    assert_eq!(change["cluster"]["nodes"][2]["state"], "fenced");
    assert_eq!(kinds(&change), ["node \"fenced\""]);
    assert!(picture.topics_are_stale());

    let change = value(picture.heard(900, all(3), Vec::new()));
    assert_eq!(kinds(&change), ["node \"answering\"", "node \"serving\""]);
}

#[test]
fn a_slow_node_is_silent_only_the_second_time() {
    let mut picture = started(1);
    let mut answers = all(1);
    answers.insert(2, slow());
    assert_eq!(picture.heard(100, answers.clone(), Vec::new()), None);
    assert_eq!(picture.heard(200, all(1), Vec::new()), None, "it was only slow");
    assert_eq!(picture.heard(300, answers.clone(), Vec::new()), None);
    assert_eq!(kinds(&value(picture.heard(400, answers, Vec::new()))), ["node \"silent\""]);
}

#[test]
fn that_nobody_answers_is_said_and_what_was_known_stays() {
    let mut picture = started(3);
    let nobody: BTreeMap<_, _> = (1..=3).map(|id| (id, refused())).collect();
    let change = value(picture.heard(100, nobody, Vec::new()));
    assert_eq!(change["cluster"]["reachable"], false);
    assert_eq!(change["cluster"]["partitions"], 3);
    assert_eq!(change["cluster"]["nodes"].as_array().unwrap().len(), 3);
    assert!(!picture.topics_are_stale(), "there is nobody to ask");
}

#[test]
fn elections_and_isr_changes_are_the_difference_of_two_views() {
    let mut picture = started(3);
    let mut moved = topic("t", 3);
    moved.partitions[0].leader = Some(2);
    moved.partitions[0].leader_epoch = 2;
    moved.partitions[0].isr = vec![2, 3];
    moved.partitions[1].isr = vec![1, 2];
    let version = picture.version;
    let change = value(picture.has_topics(50, at(2, vec![moved.clone()])));
    assert_eq!(kinds(&change), ["election 0", "isr 0", "isr 1"]);
    let election = &change["events"][0];
    assert_eq!((&election["from"], &election["to"], &election["epoch"]), (&1.into(), &2.into(), &2.into()));
    assert_eq!(change["events"][1]["left"], serde_json::json!([1]));
    assert_eq!(change["cluster"]["underReplicated"], 2);
    assert_eq!(change["cluster"]["version"], version + 1);
    assert_eq!(change["cluster"]["nodes"][1]["leads"], 2);

    assert_eq!(picture.has_topics(60, at(1, vec![topic("t", 3)])), None, "an older view changes nothing");
    assert_eq!(picture.under_replicated, 2);
    let (rows, total) =
        picture.partitions(&PartitionFilter { under_replicated: true, ..Default::default() }, 0, 1);
    assert_eq!((rows.len(), rows[0].partition, total), (1, 0, 2));
}

#[test]
fn a_node_that_led_a_thousand_partitions_makes_a_small_message() {
    let mut picture = started(1000);
    let mut moved = topic("t", 1000);
    for partition in &mut moved.partitions {
        (partition.leader, partition.leader_epoch, partition.isr) = (None, 2, vec![2, 3]);
    }
    let message = picture.has_topics(50, at(2, vec![moved])).unwrap();
    assert!(message.len() < 6_000, "{} bytes", message.len());
    let change = value(Some(message));
    assert_eq!(kinds(&change).iter().filter(|kind| kind.starts_with("elections")).count(), 1);
    assert_eq!(change["cluster"]["leaderless"], 1000);
    let snapshot = picture.snapshot();
    assert!(snapshot.len() < 10_000, "{} bytes", snapshot.len());
}

#[test]
fn a_tick_tells_rates_queues_and_lag() {
    let mut picture = started(3);
    picture.readers_are([("slow".into(), "Stable".into()), ("fast".into(), "Stable".into())].into(), false);
    picture.ends_at([(tp(0), 100), (tp(1), 50)].into());
    picture.reader_is_at("slow", [(tp(0), 10), (tp(1), 50)].into());
    picture.reader_is_at("fast", [(tp(0), 90)].into());
    assert_eq!(picture.tick(1_000, Duration::ZERO, Reading::default()), None, "no second is over");

    picture.ends_at([(tp(0), 300), (tp(2), 1_000)].into());
    picture.reader_is_at("slow", [(tp(0), 30), (tp(1), 50)].into());
    picture.reader_is_at("fast", [(tp(0), 290)].into());
    let reading = Reading { requests: 10, refused: 4, records_in: 6, ..Reading::default() };
    let tick = value(picture.tick(3_000, 2 * SECOND, reading));
    assert_eq!(tick["in"], 100.0, "200 in two seconds; partition 2 was not known before: {tick}");
    assert_eq!(tick["out"], 110.0);
    assert_eq!(
        (&tick["requests"], &tick["refused"], &tick["httpIn"]),
        (&5.0.into(), &2.0.into(), &3.0.into())
    );
    assert_eq!((&tick["depth"], &tick["lag"]), (&270.into(), &280.into()), "the slowest reader counts");
    assert_eq!(
        tick["deepest"][0],
        serde_json::json!({"topic":"t","partition":0,"depth":270,"slowest":"slow"})
    );
    assert_eq!(tick["groups"][0]["group"], "slow");
    let (topics, _) = picture.topics("", 0, 10);
    assert_eq!((topics[0].end, topics[0].rate, topics[0].depth), (1_350, 100.0, Some(270)));

    // A commit that goes back is no negative work, and a reader that is gone is no lag.
    picture.reader_is_at("slow", [(tp(0), 0)].into());
    picture.readers_are([("slow".into(), "Empty".into())].into(), false);
    let tick = value(picture.tick(4_000, SECOND, Reading::default()));
    assert_eq!((&tick["out"], &tick["lag"], &tick["groupCount"]), (&0.0.into(), &300.into(), &1.into()));
}

#[test]
fn what_is_kept_is_bounded() {
    let mut picture = started(1);
    for second in 0..2_000 {
        picture.tick(second * 1000, SECOND, Reading::default());
        let mut answers = all(1);
        if second % 2 == 0 {
            answers.insert(2, refused());
        }
        picture.heard(second * 1000, answers, Vec::new());
    }
    assert_eq!((picture.history.len(), picture.events.len()), (POINTS, EVENTS));
    assert!(picture.snapshot().len() < 64 << 10, "{} bytes", picture.snapshot().len());
}

#[test]
fn a_topic_made_again_under_its_name_begins_anew() {
    let mut picture = started(1);
    picture.ends_at([(tp(0), 100)].into());
    let mut again = topic("t", 1);
    again.id = TopicId(uuid(7));
    let change = value(picture.has_topics(5, at(2, vec![again])));
    assert_eq!(kinds(&change), ["topic \"replaced\""]);
    picture.ends_at([(tp(0), 3)].into());
    picture.tick(0, SECOND, Reading::default());
    assert_eq!(value(picture.tick(1_000, SECOND, Reading::default()))["in"], 0.0);
}

fn uuid(byte: u8) -> uuid::Uuid {
    uuid::Uuid::from_bytes([byte; 16])
}
