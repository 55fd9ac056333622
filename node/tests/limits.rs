//! What a node does not wait for: connections beyond the cap, and members of groups when it stops.
#![allow(clippy::disallowed_methods, reason = "tests drive real sockets")]

mod common;

use common::{client, cluster};
use strandline_wire::v1::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Whether the server says anything (it begins with its HTTP/2 settings) before it closes the connection.
async fn is_served(connection: &mut TcpStream) -> bool {
    connection.read(&mut [0; 1]).await.is_ok_and(|read| read > 0)
}

#[test]
fn clients_beyond_max_connections_are_closed_at_once_and_other_nodes_are_not_counted() {
    let mut nodes = cluster(1, 11);
    nodes[0].config.max_connections = 3;
    nodes[0].start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut first = client(&nodes[0], 1).await;
        let connect = || TcpStream::connect(nodes[0].grpc());
        // What the client tried before may hold slots still: the cap shows once as many are served as there may be.
        let mut held = Vec::new();
        let mut refused = 0;
        while refused == 0 {
            let mut connection = connect().await.unwrap();
            match is_served(&mut connection).await {
                true => held.push(connection),
                false => refused += 1,
            }
            assert!(held.len() < 3, "the client has a connection of its own");
        }
        let peer = nodes[0].config.listen_peer.to_string();
        let mut peer = TcpStream::connect(peer).await.unwrap();
        peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        assert!(is_served(&mut peer).await, "the other nodes have a listener of their own");
        let status = first.cluster_status(ClusterStatusRequest {}).await.unwrap().into_inner();
        assert!(status.error.is_none(), "who is connected is served");

        drop(held);
        while !is_served(&mut connect().await.unwrap()).await {
            tokio::task::yield_now().await; // The node has not seen yet that they are gone.
        }
    });
    nodes[0].stop();
}

#[test]
fn a_node_that_stops_answers_members_that_wait_to_join() {
    let mut nodes = cluster(1, 12);
    // The first member waits for others, far longer than this test.
    nodes[0].config.group_initial_rebalance_delay = std::time::Duration::from_secs(300);
    nodes[0].start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut waiting = None;
    runtime.block_on(async {
        let mut client = client(&nodes[0], 1).await;
        let protocols = vec![GroupProtocol { name: "range".to_owned(), metadata: Default::default() }];
        let mut request = JoinGroupRequest {
            group: "g".to_owned(),
            session_timeout_ms: 600_000,
            rebalance_timeout_ms: 600_000,
            protocol_type: "consumer".to_owned(),
            protocols,
            ..Default::default()
        };
        let named = client.join_group(request.clone()).await.unwrap().into_inner();
        assert_eq!(named.error.map(|error| error.code()), Some(ErrorCode::MemberIdRequired));
        request.member_id = named.member_id;
        let mut joining = client.clone();
        waiting = Some(tokio::spawn(async move { joining.join_group(request).await }));
        // It waits once the group has a member.
        loop {
            let describe = DescribeGroupRequest { group: "g".to_owned() };
            let group = client.describe_group(describe).await.unwrap().into_inner();
            if group.state == "PreparingRebalance" {
                break;
            }
            tokio::task::yield_now().await;
        }
    });
    nodes[0].stop();
    let answer = runtime
        .block_on(waiting.expect("it was asked"))
        .unwrap()
        .expect("an answer, not a broken connection")
        .into_inner();
    assert_eq!(answer.error.map(|error| error.code()), Some(ErrorCode::ShuttingDown));
}
