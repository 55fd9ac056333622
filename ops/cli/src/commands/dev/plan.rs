//! Which node gets which ports, directory and flags; decided, and checked, before anything is started.

use super::DevArgs;
use super::data_dir::{Found, Standing};
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
    pub http: String,
    pub dir: PathBuf,
    /// How it comes into its cluster.
    entry: Entry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// As one of those that form it, or formed it, or have belonged to it since.
    Form,
    Join,
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
    /// Nodes that would be started, had they not been removed from the cluster.
    pub removed: Vec<u64>,
    /// Nodes that have data here and are not asked for.
    pub idle: Vec<u64>,
}

impl Plan {
    pub fn make(args: &DevArgs, found: &Found) -> Result<Plan, Failure> {
        let last = args.nodes - 1;
        let ranges = [
            ("--grpc-port", args.grpc_port),
            ("--peer-port", args.peer_port),
            ("--kafka-port", args.kafka_port),
            ("--http-port", args.http_port),
        ];
        for (flag, first) in ranges {
            if first.checked_add(last).is_none() {
                let message = format!("{flag} {first} leaves no room for {} consecutive ports", args.nodes);
                return Err(Failure::usage(message));
            }
        }
        for (i, (flag, port)) in ranges.iter().enumerate() {
            if let Some((other, theirs)) = ranges[..i].iter().find(|(_, p)| p.abs_diff(*port) <= last) {
                return Err(Failure::usage(format_args!(
                    "{other} {theirs} and {flag} {port} overlap: each node takes one port from each on"
                )));
            }
        }
        let standing = |id: u64| found.get(&id).copied();
        let exists = found.values().any(|standing| matches!(standing, Standing::Member | Standing::Removed));
        let entry = |id: u64| match standing(id) {
            Some(Standing::Member | Standing::Forming) => Entry::Form,
            _ if exists => Entry::Join,
            _ => Entry::Form,
        };
        let node = |i: u16| NodePlan {
            id: u64::from(i) + 1,
            grpc: format!("127.0.0.1:{}", args.grpc_port + i),
            peer: format!("127.0.0.1:{}", args.peer_port + i),
            kafka: format!("127.0.0.1:{}", args.kafka_port + i),
            http: format!("127.0.0.1:{}", args.http_port + i),
            dir: args.data_dir.join(format!("node-{}", i + 1)),
            entry: entry(u64::from(i) + 1),
        };
        let last = u64::from(args.nodes);
        let gone = |id: u64| standing(id) == Some(Standing::Removed);
        let nodes: Vec<NodePlan> = (0..args.nodes).map(node).filter(|node| !gone(node.id)).collect();
        if exists && !nodes.iter().any(|node| standing(node.id) == Some(Standing::Member)) {
            return Err(Failure::usage(format_args!(
                "{} holds a cluster, but none of the nodes 1 to {last} belongs to it (any more)",
                args.data_dir.display()
            ))
            .hint("start those that do with --nodes, or choose another --data-dir"));
        }
        Ok(Plan {
            nodes,
            node_flags: args.node_flags.clone(),
            removed: (1..=last).filter(|id| gone(*id)).collect(),
            idle: found.keys().copied().filter(|id| *id > last && !gone(*id)).collect(),
        })
    }

    /// Nodes that are to join a cluster.
    pub fn joining(&self) -> impl Iterator<Item = u64> {
        self.nodes.iter().filter(|node| node.entry == Entry::Join).map(|node| node.id)
    }

    /// Every port must be free now: a node that cannot bind is harder to understand.
    pub fn check_ports(&self) -> Result<(), Failure> {
        let mut taken = Vec::new();
        let mut held = Vec::new();
        for node in &self.nodes {
            for (address, flag) in [
                (&node.grpc, "--grpc-port"),
                (&node.peer, "--peer-port"),
                (&node.kafka, "--kafka-port"),
                (&node.http, "--http-port"),
            ] {
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

    /// Arguments of `strandline` that run this node.
    pub fn arguments(&self, node: &NodePlan) -> Vec<String> {
        let inside = self.nodes.iter().filter(|node| node.entry == Entry::Form);
        let (flag, others): (&str, Vec<String>) = match node.entry {
            Entry::Form => {
                ("--form-cluster", inside.map(|node| format!("{}={}", node.id, node.peer)).collect())
            }
            Entry::Join => ("--join", inside.map(|node| node.peer.clone()).collect()),
        };
        let mut arguments: Vec<String> =
            ["serve", "--node-id", &node.id.to_string(), "--data-dir"].map(String::from).into();
        arguments.push(node.dir.display().to_string());
        for (flag, value) in [
            ("--listen-grpc", &node.grpc),
            ("--listen-peer", &node.peer),
            ("--listen-kafka", &node.kafka),
            ("--listen-http", &node.http),
            (flag, &others.join(",")),
        ] {
            arguments.extend([flag.to_owned(), value.clone()]);
        }
        arguments.extend(["--ingest-development".to_owned(), "true".to_owned()]);
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

    fn fresh(args: &DevArgs) -> Result<Plan, Failure> {
        Plan::make(args, &Found::default())
    }

    /// The flag that brings each node in, with what it says.
    fn entries(plan: &Plan) -> Vec<(u64, String)> {
        let entry = |node: &NodePlan| {
            let arguments = plan.arguments(node);
            let at = arguments.iter().position(|flag| flag == "--form-cluster" || flag == "--join").unwrap();
            (node.id, arguments[at..at + 2].join(" "))
        };
        plan.nodes.iter().map(entry).collect()
    }

    #[test]
    fn nodes_that_are_new_to_a_cluster_join_those_that_belong_to_it() {
        use Standing::{Forming, Joining, Member, Removed};
        let form = |list: &str| format!("--form-cluster {list}");
        let two = form("1=127.0.0.1:7170,2=127.0.0.1:7171");
        let join = |list: &str| format!("--join {list}");
        let both = "127.0.0.1:7170,127.0.0.1:7171";
        let plan = |nodes, found: &[_]| {
            Plan::make(&args(nodes, 7070, 7170), &found.iter().copied().collect()).unwrap()
        };

        let forming = plan(2, &[(1, Forming)]);
        assert_eq!(entries(&forming), [(1, two.clone()), (2, two.clone())], "nobody belongs to one yet");
        assert_eq!(forming.joining().count(), 0);

        let grown = plan(3, &[(1, Member), (2, Forming)]);
        assert_eq!(entries(&grown), [(1, two.clone()), (2, two.clone()), (3, join(both))]);
        assert_eq!(grown.joining().collect::<Vec<_>>(), [3]);
        let again = plan(3, &[(1, Member), (2, Member), (3, Joining)]);
        assert_eq!(entries(&again)[2], (3, join(both)), "it was stopped before it had joined");

        let shrunk = plan(4, &[(1, Member), (2, Removed), (3, Member), (5, Member)]);
        let rest = form("1=127.0.0.1:7170,3=127.0.0.1:7172");
        assert_eq!(
            entries(&shrunk),
            [(1, rest.clone()), (3, rest), (4, join("127.0.0.1:7170,127.0.0.1:7172"))]
        );
        assert_eq!((shrunk.removed, shrunk.idle), (vec![2], vec![5]));

        for found in [&[(1, Removed)][..], &[(1, Removed), (4, Member)]] {
            let found = found.iter().copied().collect();
            let failure = Plan::make(&args(3, 7070, 7180), &found).unwrap_err();
            assert!(failure.message.contains("none of the nodes 1 to 3 belongs to it"), "{failure:?}");
        }
    }

    #[test]
    fn each_node_gets_consecutive_ports_a_directory_and_the_same_list() {
        let plan = fresh(&args(3, 7070, 7170)).unwrap();
        let grpc: Vec<&str> = plan.nodes.iter().map(|node| node.grpc.as_str()).collect();
        assert_eq!(grpc, ["127.0.0.1:7070", "127.0.0.1:7071", "127.0.0.1:7072"]);
        assert_eq!(
            plan.arguments(&plan.nodes[1]).join(" "),
            "serve --node-id 2 --data-dir d/node-2 --listen-grpc 127.0.0.1:7071 --listen-peer 127.0.0.1:7171 \
             --listen-kafka 127.0.0.1:9093 --listen-http 127.0.0.1:8081 \
             --form-cluster 1=127.0.0.1:7170,2=127.0.0.1:7171,3=127.0.0.1:7172 --ingest-development true --log-level debug"
        );
    }

    #[test]
    fn ports_that_overlap_or_run_out_are_refused() {
        assert_eq!(fresh(&args(3, 7070, 7072)).unwrap_err().exit, Exit::Usage);
        assert_eq!(fresh(&args(3, 7072, 7070)).unwrap_err().exit, Exit::Usage);
        assert!(fresh(&args(3, 7070, 7073)).is_ok());
        assert_eq!(fresh(&args(3, 65534, 7170)).unwrap_err().exit, Exit::Usage);
        assert!(fresh(&args(2, 65534, 7170)).is_ok());
    }

    #[test]
    fn a_port_in_use_is_named_before_anything_starts() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = other.local_addr().unwrap().port();
        let peer_port = if taken > 30_000 { taken - 20_000 } else { taken + 20_000 };
        let failure = fresh(&args(1, taken, peer_port)).unwrap().check_ports().unwrap_err();
        assert!(failure.message.contains(&format!("port {taken} of node 1")), "{failure:?}");
        assert!(failure.hint.unwrap().contains("nothing was started"));
    }
}
