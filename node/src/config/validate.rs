//! What must hold between values, beyond the range of each.

use super::keys::{KEYS, NodeConfig};
use std::fmt;

/// A rule that a configuration breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key to look at first.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.message)
    }
}

impl NodeConfig {
    /// Every rule that the configuration breaks; none when it can be run.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut found = Vec::new();
        let mut refuse = |key: &'static str, message: String| found.push(Violation { key, message });

        for key in KEYS {
            let missing = key.required && matches!(key.get(self).as_str(), "" | "0");
            if missing {
                refuse(key.name, format!("must be given, for example `{} = {}`", key.name, key.example));
            } else if let Err(why) = key.check_range(self) {
                refuse(key.name, format!("{why}; allowed: {}", key.allowed()));
            }
        }

        if let Some(nodes) = &self.form_cluster {
            if !self.join.is_empty() {
                refuse(
                    "join",
                    "a node either forms a cluster or joins one: give form.cluster or join".into(),
                );
            }
            match nodes.0.get(&self.node_id) {
                None => refuse(
                    "form.cluster",
                    format!(
                        "does not list this node ({}); every listed node gets the same list",
                        self.node_id
                    ),
                ),
                Some(own) if *own != self.advertised_peer() => refuse(
                    "form.cluster",
                    format!("lists this node as {own}, but advertise.peer is {}", self.advertised_peer()),
                ),
                Some(_) => {}
            }
        }
        for (key, listen, advertised) in [
            ("advertise.grpc", &self.listen_grpc, self.advertised_grpc()),
            ("advertise.peer", &self.listen_peer, self.advertised_peer()),
        ]
        .into_iter()
        .chain(
            self.listen_kafka.as_ref().zip(self.advertised_kafka()).map(|(l, a)| ("advertise.kafka", l, a)),
        )
        .chain(self.listen_http.as_ref().zip(self.advertised_http()).map(|(l, a)| ("advertise.http", l, a)))
        {
            if advertised.is_unspecified() {
                let of = key.replace("advertise", "listen");
                refuse(
                    key,
                    format!("must be given when {of} is {listen}: others cannot connect to {advertised}"),
                );
            }
        }
        match &self.listen_kafka {
            None if self.advertise_kafka.is_some() => {
                refuse("advertise.kafka", "is of no use without listen.kafka".to_owned());
            }
            Some(listen) if *listen == self.listen_grpc || *listen == self.listen_peer => {
                refuse(
                    "listen.kafka",
                    format!("is another listener's address ({listen}); each needs its own port"),
                );
            }
            Some(_) if i32::try_from(self.node_id.get()).is_err() => {
                refuse(
                    "listen.kafka",
                    "needs a node.id of at most 2147483647, as Kafka has 32 bits for it".to_owned(),
                );
            }
            _ => {}
        }
        match &self.listen_http {
            None if self.advertise_http.is_some() => {
                refuse("advertise.http", "is of no use without listen.http".to_owned());
            }
            Some(listen)
                if [&self.listen_grpc, &self.listen_peer].contains(&listen)
                    || self.listen_kafka.as_ref() == Some(listen) =>
            {
                refuse(
                    "listen.http",
                    format!("is another listener's address ({listen}); each needs its own port"),
                );
            }
            _ => {}
        }
        if self.listen_grpc == self.listen_peer {
            refuse(
                "listen.peer",
                format!("is the same as listen.grpc ({}); they need two ports", self.listen_grpc),
            );
        }

        let mut at_least = |key, value: u128, low: u128, why: &str| {
            if value < low {
                refuse(key, format!("is {value}, which is less than {low}: {why}"));
            }
        };
        at_least(
            "broker.session.timeout.ms",
            self.broker_session_timeout.as_millis(),
            2 * self.broker_heartbeat_interval.as_millis(),
            "at least two broker.heartbeat.interval.ms must fit, or one lost report fences a broker",
        );
        at_least(
            "raft.election.min.ms",
            self.raft_election_min.as_millis(),
            2 * self.raft_heartbeat.as_millis(),
            "at least two raft.heartbeat.ms must fit, or a healthy leader is voted out",
        );
        at_least(
            "raft.election.max.ms",
            self.raft_election_max.as_millis(),
            self.raft_election_min.as_millis() + 10,
            "it must lie above raft.election.min.ms, or voters seek election at the same moment",
        );
        at_least(
            "group.max.session.timeout.ms",
            self.group_max_session_timeout.as_millis(),
            self.group_min_session_timeout.as_millis(),
            "it is the longest timeout, group.min.session.timeout.ms the shortest",
        );
        at_least(
            "queued.max.request.bytes",
            u128::from(self.queued_max_request_bytes),
            u128::from(self.kafka_max_request_bytes),
            "a request of kafka.max.request.bytes could never be read",
        );
        at_least(
            "http.max.inflight.bytes",
            u128::from(self.http_max_inflight_bytes),
            u128::from(self.http_max_body_bytes),
            "a body of http.max.body.bytes would never be let in",
        );
        at_least(
            "group.consumer.session.timeout.ms",
            self.group_consumer_session_timeout.as_millis(),
            2 * self.group_consumer_heartbeat_interval.as_millis(),
            "two group.consumer.heartbeat.interval.ms must fit, or healthy members are removed",
        );
        let largest_batch = u128::from(self.message_max_bytes);
        for (key, value) in [
            ("log.segment.bytes", self.log_segment_bytes),
            ("journal.file.bytes", self.journal_file_bytes / 2),
            ("produce.inflight.max.bytes", self.produce_inflight_max_bytes),
        ] {
            let why = match key {
                "journal.file.bytes" => "half a journal file must hold a batch of message.max.bytes",
                _ => "it must hold a batch of message.max.bytes",
            };
            at_least(key, u128::from(value), largest_batch, why);
        }

        if found.is_empty() { Ok(()) } else { Err(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use strandline_record::BrokerId;

    fn valid() -> NodeConfig {
        NodeConfig::new(BrokerId(1), "data")
    }

    /// Keys that are complained about after `change`.
    fn complaints(change: impl FnOnce(&mut NodeConfig)) -> Vec<&'static str> {
        let mut config = valid();
        change(&mut config);
        config.validate().err().unwrap_or_default().into_iter().map(|v| v.key).collect()
    }

    #[test]
    fn the_defaults_with_an_id_and_a_directory_are_valid() {
        assert_eq!(valid().validate(), Ok(()));
        let missing: Vec<_> =
            NodeConfig::default().validate().unwrap_err().into_iter().map(|v| v.key).collect();
        assert_eq!(missing, ["node.id", "data.dir"]);
    }

    #[test]
    fn each_rule_is_enforced() {
        let list = |text: &str| Some(text.parse().unwrap());
        assert_eq!(complaints(|c| c.form_cluster = list("2=b:2")), ["form.cluster"]);
        assert_eq!(complaints(|c| c.form_cluster = list("1=a:1")), [""; 0]);
        assert_eq!(
            complaints(|c| {
                c.form_cluster = list("1=a:1");
                c.advertise_peer = Some("z:1".parse().unwrap());
            }),
            ["form.cluster"]
        );
        assert_eq!(
            complaints(|c| {
                c.form_cluster = list("1=a:1");
                c.join = vec!["b:2".parse().unwrap()];
            }),
            ["join"]
        );
        assert_eq!(complaints(|c| c.listen_grpc = "0.0.0.0:7070".parse().unwrap()), ["advertise.grpc"]);
        assert_eq!(complaints(|c| c.listen_peer = c.listen_grpc.clone()), ["listen.peer"]);
        let kafka = |text: &str| Some(text.parse().unwrap());
        assert_eq!(complaints(|c| c.listen_kafka = kafka("0.0.0.0:9092")), ["advertise.kafka"]);
        assert_eq!(complaints(|c| c.advertise_kafka = kafka("a:9092")), ["advertise.kafka"]);
        assert_eq!(complaints(|c| c.listen_kafka = Some(c.listen_grpc.clone())), ["listen.kafka"]);
        let http = kafka;
        assert_eq!(complaints(|c| c.listen_http = http("127.0.0.1:8080")), [""; 0]);
        assert_eq!(complaints(|c| c.listen_http = http("0.0.0.0:8080")), ["advertise.http"]);
        assert_eq!(complaints(|c| c.advertise_http = http("a:8080")), ["advertise.http"]);
        assert_eq!(complaints(|c| c.listen_http = Some(c.listen_peer.clone())), ["listen.http"]);
        assert_eq!(complaints(|c| c.http_max_inflight_bytes = 1 << 20), ["http.max.inflight.bytes"]);
        let large = |c: &mut NodeConfig| {
            c.node_id = strandline_record::BrokerId(1 << 31);
            c.listen_kafka = kafka("127.0.0.1:9092");
        };
        assert_eq!(complaints(large), ["listen.kafka"]);
        assert_eq!(complaints(|c| c.queued_max_request_bytes = 1 << 20), ["queued.max.request.bytes"]);
        assert_eq!(
            complaints(|c| c.broker_session_timeout = Duration::from_millis(900)),
            ["broker.session.timeout.ms"]
        );
        assert_eq!(complaints(|c| c.raft_election_min = Duration::from_millis(90)), ["raft.election.min.ms"]);
        assert_eq!(complaints(|c| c.raft_election_max = c.raft_election_min), ["raft.election.max.ms"]);
        assert_eq!(
            complaints(|c| c.group_max_session_timeout = Duration::from_millis(500)),
            ["group.max.session.timeout.ms"]
        );
        assert_eq!(
            complaints(|c| c.group_consumer_heartbeat_interval = Duration::from_secs(30)),
            ["group.consumer.session.timeout.ms"]
        );
        assert_eq!(complaints(|c| c.log_segment_bytes = 100_000), ["log.segment.bytes"]);
        assert_eq!(complaints(|c| c.journal_file_bytes = 2_000_000), ["journal.file.bytes"]);
        assert_eq!(
            complaints(|c| {
                c.message_max_bytes = 2 << 20;
                c.produce_inflight_max_bytes = 1 << 20;
            }),
            ["produce.inflight.max.bytes"]
        );
        assert_eq!(complaints(|c| c.worker_threads = 0), ["worker.threads"]);
    }
}
