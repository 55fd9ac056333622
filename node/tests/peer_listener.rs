//! The peer listener towards connections that are not what they should be, byte by byte as they stand on the wire.
#![allow(clippy::disallowed_methods, reason = "a test dials for itself")]

mod common;

use bytes::Bytes;
use common::{client, cluster};
use prost::Message;
use strandline_wire::peer::peer_client::PeerClient;
use strandline_wire::peer::replica_data_partition::Outcome;
use strandline_wire::peer::{ProbeRequest, ReplicaData, ReplicaFetch, ReplicaFetchPartition};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"SLREPL\0\x01";

fn frame(head: &impl Message) -> Vec<u8> {
    let head = head.encode_to_vec();
    [&(head.len() as u32).to_be_bytes()[..], &[0; 4], &head].concat()
}

async fn receive(stream: &mut TcpStream) -> ReplicaData {
    let (head, body) = (stream.read_u32().await.unwrap(), stream.read_u32().await.unwrap());
    let mut bytes = vec![0; (head + body) as usize];
    stream.read_exact(&mut bytes).await.unwrap();
    ReplicaData::decode(&bytes[..head as usize]).unwrap()
}

/// Whether the other side has closed it, with nothing more to read.
async fn is_closed(stream: &mut TcpStream) -> bool {
    // A reset is an end too: what was sent may not have been read.
    !matches!(stream.read(&mut [0; 1]).await, Ok(1..))
}

#[test]
fn what_is_no_replication_stream_of_this_cluster_is_turned_away_and_disturbs_nobody() {
    let mut nodes = cluster(1, 6);
    nodes[0].start();
    let addr = nodes[0].config.listen_peer.to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        client(&nodes[0], 1).await;
        // Says nothing, and stays: the others are served all the same.
        let _silent = TcpStream::connect(&addr).await.unwrap();
        let open = |bytes: Vec<u8>| {
            let addr = addr.clone();
            async move {
                let mut stream = TcpStream::connect(addr).await.unwrap();
                stream.write_all(PREFACE).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                stream
            }
        };

        let mut peer = PeerClient::connect(format!("http://{addr}")).await.unwrap();
        let probed =
            peer.probe(ProbeRequest { broker_id: 9, ..Default::default() }).await.unwrap().into_inner();
        let cluster_id = probed.cluster_id;

        let elsewhere = ReplicaFetch { cluster_id: "elsewhere".to_owned(), ..Default::default() };
        let mut stranger = open(frame(&elsewhere)).await;
        let refusal = receive(&mut stranger).await.refusal;
        assert!(refusal.contains(&cluster_id) && refusal.contains("elsewhere"), "{refusal}");
        assert!(is_closed(&mut stranger).await);

        let right = ReplicaFetch { broker_id: 9, broker_epoch: 1, cluster_id, ..Default::default() };
        for wrong in [
            vec![0xff; 8],                                               // longer than any frame
            [&[0, 0, 0, 0, 0, 0, 0, 1, 7], &frame(&right)[..]].concat(), // a request with a body
            [&[0, 0, 0, 2, 0, 0, 0, 0], &[0xff; 2][..]].concat(),        // not a message
        ] {
            assert!(is_closed(&mut open(wrong.clone()).await).await, "{wrong:?} was taken");
        }

        // One that is right is told that it is open, and that there is no such partition.
        let mut follower = open(frame(&right)).await;
        assert_eq!(receive(&mut follower).await, ReplicaData::default());
        let partition = ReplicaFetchPartition {
            topic_id: Bytes::from_static(&[7; 16]),
            partition: 3,
            leader_epoch: 5,
            number: 11,
            ..Default::default()
        };
        let fetch = ReplicaFetch { partitions: vec![partition], ..right.clone() };
        follower.write_all(&frame(&fetch)).await.unwrap();
        let answer = receive(&mut follower).await.partitions.remove(0);
        assert_eq!((answer.partition, answer.leader_epoch, answer.number), (3, 5, 11));
        assert_eq!(answer.outcome(), Outcome::NotLeader);

        // Under another registration it has to begin anew.
        follower.write_all(&frame(&ReplicaFetch { broker_epoch: 2, ..right })).await.unwrap();
        assert!(is_closed(&mut follower).await);
    });
}
