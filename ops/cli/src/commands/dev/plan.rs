//! Which node gets which ports, directory and flags; decided, and checked, before anything is started.

use super::DevArgs;
use crate::exit::{Exit, Failure};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

/// Everything that is needed to start one node, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    pub id: u64,
    pub grpc: String,
    pub peer: String,
    pub kafka: String,
    pub dir: PathBuf,
}

impl NodePlan {
    pub fn log(&self) -> PathBuf {
        self.dir.join("log.txt")
    }

    pub fn pid_file(&self) -> PathBuf {
        self.dir.join("pid")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub nodes: Vec<NodePlan>,
    pub node_flags: Vec<String>,
}

impl Plan {
    pub fn make(args: &DevArgs) -> Result<Plan, Failure> {
        let last = args.nodes - 1;
        for (flag, first) in [
            ("--grpc-port", args.grpc_port),
            ("--peer-port", args.peer_port),
            ("--kafka-port", args.kafka_port),
        ] {
            if first.checked_add(last).is_none() {
                let message = format!("{flag} {first} leaves no room for {} consecutive ports", args.nodes);
                return Err(Failure::usage(message));
            }
        }
        let ranges = [
            ("--grpc-port", args.grpc_port),
            ("--peer-port", args.peer_port),
            ("--kafka-port", args.kafka_port),
        ];
        for (i, (flag, port)) in ranges.iter().enumerate() {
            if let Some((other, theirs)) = ranges[..i].iter().find(|(_, p)| p.abs_diff(*port) <= last) {
                return Err(Failure::usage(format_args!(
                    "{other} {theirs} and {flag} {port} overlap: each node takes one port from each on"
                )));
            }
        }
        let node = |i: u16| NodePlan {
            id: u64::from(i) + 1,
            grpc: format!("127.0.0.1:{}", args.grpc_port + i),
            peer: format!("127.0.0.1:{}", args.peer_port + i),
            kafka: format!("127.0.0.1:{}", args.kafka_port + i),
            dir: args.data_dir.join(format!("node-{}", i + 1)),
        };
        Ok(Plan { nodes: (0..args.nodes).map(node).collect(), node_flags: args.node_flags.clone() })
    }

    /// Every port must be free now: a node that cannot bind is harder to understand.
    pub fn check_ports(&self) -> Result<(), Failure> {
        let mut taken = Vec::new();
        let mut held = Vec::new();
        for node in &self.nodes {
            for (address, flag) in
                [(&node.grpc, "--grpc-port"), (&node.peer, "--peer-port"), (&node.kafka, "--kafka-port")]
            {
                match TcpListener::bind(address) {
                    Ok(listener) => held.push(listener),
                    Err(error) => taken.push((port(address), flag, node.id, error)),
                }
            }
        }
        let Some((first, flag, _, _)) = taken.first() else { return Ok(()) };
        let lines: Vec<String> =
            taken.iter().map(|(port, _, id, error)| format!("port {port} of node {id}: {error}")).collect();
        let free = free_ports_from(first.saturating_add(10), self.nodes.len());
        let advice = free.map_or(String::new(), |port| format!(", such as {flag} {port}"));
        Err(Failure::new(Exit::Failure, lines.join("\n")).hint(format_args!(
            "nothing was started; is another cluster running? Stop it, or choose other ports{advice}"
        )))
    }

    /// Addresses for `--bootstrap`.
    pub fn bootstrap(&self) -> String {
        self.nodes.iter().map(|node| node.grpc.as_str()).collect::<Vec<_>>().join(",")
    }

    /// `bootstrap.servers` of Kafka clients.
    pub fn kafka_bootstrap(&self) -> String {
        self.nodes.iter().map(|node| node.kafka.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Arguments of `strandline` that run this node.
    pub fn arguments(&self, node: &NodePlan) -> Vec<String> {
        let form: Vec<String> = self.nodes.iter().map(|node| format!("{}={}", node.id, node.peer)).collect();
        let mut arguments: Vec<String> =
            ["serve", "--node-id", &node.id.to_string(), "--data-dir"].map(String::from).into();
        arguments.push(node.dir.display().to_string());
        for (flag, value) in [
            ("--listen-grpc", &node.grpc),
            ("--listen-peer", &node.peer),
            ("--listen-kafka", &node.kafka),
            ("--form-cluster", &form.join(",")),
        ] {
            arguments.extend([flag.to_owned(), value.clone()]);
        }
        arguments.extend(self.node_flags.iter().cloned());
        arguments
    }
}

fn port(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("the plan made the address")
}

/// The first of `count` free consecutive ports at or after `from`, if there are some nearby.
fn free_ports_from(from: u16, count: usize) -> Option<u16> {
    (from..from.saturating_add(2000)).step_by(10).find(|first| {
        (0..count).all(|i| {
            let port = u16::try_from(usize::from(*first) + i).ok();
            port.is_some_and(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(nodes: u16, grpc_port: u16, peer_port: u16) -> DevArgs {
        DevArgs {
            nodes,
            data_dir: "d".into(),
            grpc_port,
            peer_port,
            kafka_port: 9092,
            http_port: 8080,
            no_restart: false,
            node_flags: vec!["--log-level".into(), "debug".into()],
        }
    }

    #[test]
    fn each_node_gets_consecutive_ports_a_directory_and_the_same_list() {
        let plan = Plan::make(&args(3, 7070, 7170)).unwrap();
        assert_eq!(plan.bootstrap(), "127.0.0.1:7070,127.0.0.1:7071,127.0.0.1:7072");
        assert_eq!(
            plan.arguments(&plan.nodes[1]).join(" "),
            "serve --node-id 2 --data-dir d/node-2 --listen-grpc 127.0.0.1:7071 --listen-peer 127.0.0.1:7171 \
             --listen-kafka 127.0.0.1:9093 --form-cluster 1=127.0.0.1:7170,2=127.0.0.1:7171,3=127.0.0.1:7172 --log-level debug"
        );
    }

    #[test]
    fn ports_that_overlap_or_run_out_are_refused() {
        assert_eq!(Plan::make(&args(3, 7070, 7072)).unwrap_err().exit, Exit::Usage);
        assert_eq!(Plan::make(&args(3, 7072, 7070)).unwrap_err().exit, Exit::Usage);
        assert!(Plan::make(&args(3, 7070, 7073)).is_ok());
        assert_eq!(Plan::make(&args(3, 65534, 7170)).unwrap_err().exit, Exit::Usage);
        assert!(Plan::make(&args(2, 65534, 7170)).is_ok());
    }

    #[test]
    fn a_port_in_use_is_named_before_anything_starts() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = other.local_addr().unwrap().port();
        let peer_port = if taken > 30_000 { taken - 20_000 } else { taken + 20_000 };
        let failure = Plan::make(&args(1, taken, peer_port)).unwrap().check_ports().unwrap_err();
        assert!(failure.message.contains(&format!("port {taken} of node 1")), "{failure:?}");
        assert!(failure.hint.unwrap().contains("nothing was started"));
    }
}
