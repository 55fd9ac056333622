#![allow(clippy::disallowed_methods, reason = "real sockets")]

use super::*;
use crate::env::{Env, RealEnv};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8; PREFACE_BYTES] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn listener() -> (Box<dyn Listener>, String) {
    let listener = RealEnv::new().listen("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

async fn is_closed(client: &mut TcpStream) -> bool {
    client.read(&mut [0; 1]).await.map_or(true, |read| read == 0)
}

#[tokio::test]
async fn beyond_the_cap_connections_are_closed_at_once_until_one_ends() {
    let (listener, addr) = listener().await;
    let limits = Limits { max_connections: 2, handshake: Duration::from_secs(3600) };
    let mut served = std::pin::pin!(incoming(Acceptor::new("test", listener, limits)));
    let mut first = TcpStream::connect(&addr).await.unwrap();
    let held = served.next().await;
    let _second = TcpStream::connect(&addr).await.unwrap();
    let _held = served.next().await;

    for _ in 0..3 {
        let mut refused = TcpStream::connect(&addr).await.unwrap();
        tokio::select! {
            biased;
            _ = served.next() => panic!("a third connection is served"),
            closed = is_closed(&mut refused) => assert!(closed),
        }
    }
    drop(held);
    assert!(is_closed(&mut first).await);
    let _next = TcpStream::connect(&addr).await.unwrap();
    assert!(served.next().await.is_some_and(|served| served.is_ok()), "a slot is free again");
}

#[tokio::test]
async fn a_connection_that_does_not_say_what_it_is_in_time_is_closed() {
    let (listener, addr) = listener().await;
    let limits = Limits { max_connections: 2, handshake: Duration::from_millis(30) };
    let mut served = std::pin::pin!(incoming(Acceptor::new("test", listener, limits)));
    for said in [0, PREFACE_BYTES - 1] {
        let mut client = TcpStream::connect(&addr).await.unwrap();
        client.write_all(&PREFACE[..said]).await.unwrap();
        let mut io = served.next().await.unwrap().unwrap();
        let error = io.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(io.handshake.as_ref().map(|h| h.unserved.total() > 0), Some(true), "it is counted");
        drop(io);
        assert!(is_closed(&mut client).await);
    }
}

#[tokio::test]
async fn a_connection_that_has_said_what_it_is_may_be_silent() {
    let (listener, addr) = listener().await;
    let limits = Limits { max_connections: 1, handshake: Duration::from_secs(600) };
    let mut served = std::pin::pin!(incoming(Acceptor::new("test", listener, limits)));
    let mut client = TcpStream::connect(&addr).await.unwrap();
    let mut io = served.next().await.unwrap().unwrap();
    // In two pieces, the second with what follows.
    let (begin, end) = PREFACE.split_at(5);
    let mut read = [0; PREFACE_BYTES + 1];
    client.write_all(begin).await.unwrap();
    io.read_exact(&mut read[..5]).await.unwrap();
    client.write_all(&[end, b"x"].concat()).await.unwrap();
    io.read_exact(&mut read[5..]).await.unwrap();
    assert!(io.handshake.is_none(), "nothing is waited for any more");
    client.write_all(b"y").await.unwrap();
    assert_eq!(io.read_u8().await.unwrap(), b'y');
}
