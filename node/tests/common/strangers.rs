//! A client that sends what a fuzzer says: see `node/fuzz`. The node must answer or close the connection, and go on
//! answering others.
//!
//! Input: the lowest bit of the first byte says whether the client introduces itself, the next whether it ends within a
//! frame; then requests as `fuzzing::row` reads them, each behind two bytes of length.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;
use strandline_node::fuzzing::row;

/// ApiVersions, version 0.
const HELLO: [u8; 12] = [0, 18, 0, 0, 0, 0, 0, 1, 0, 2, b'f', b'z'];
/// Nothing an honest node does here takes this long.
const DEADLINE: Duration = Duration::from_secs(20);

/// One node for the whole process.
fn node() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let mut node = super::cluster(1, 1).remove(0);
        node.start();
        let address = node.kafka();
        std::mem::forget(node);
        while introduced(&address).is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        address
    })
}

fn framed(request: &[u8]) -> Vec<u8> {
    let mut frame = (request.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(request);
    frame
}

/// A connection whose ApiVersions request was answered.
fn introduced(address: &str) -> Option<TcpStream> {
    let mut connection = TcpStream::connect(address).ok()?;
    connection.set_read_timeout(Some(DEADLINE)).ok()?;
    connection.write_all(&framed(&HELLO)).ok()?;
    let mut length = [0; 4];
    connection.read_exact(&mut length).ok()?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    connection.read_exact(&mut answer).ok()?;
    Some(connection)
}

fn requests(mut data: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let (request, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        data = rest;
        let Some((served, version, body)) = row(request) else { continue };
        let mut whole = (served.key as i16).to_be_bytes().to_vec();
        whole.extend(version.to_be_bytes());
        whole.extend([0, 0, 0, 7, 0, 2, b'f', b'z']);
        if served.is_flexible(version) {
            whole.push(0);
        }
        whole.extend_from_slice(body);
        sent.extend(framed(&whole));
    }
    sent
}

/// # Panics
/// When the node neither answers nor closes, or does not answer others any more.
pub fn connection(data: &[u8]) {
    let address = node();
    let Some((&flags, rest)) = data.split_first() else { return };
    let mut sent = if flags & 1 == 0 { Vec::new() } else { framed(&HELLO) };
    sent.extend(requests(rest));
    if flags & 2 != 0 {
        sent.extend([0, 0, 1, 0, 0]);
    }
    let mut connection = TcpStream::connect(address).expect("the node takes connections");
    connection.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
    // It may have closed the connection at the first request.
    let _ = connection.write_all(&sent);
    let _ = connection.shutdown(Shutdown::Write);
    let ended = connection.read_to_end(&mut Vec::new());
    let hung = ended.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    assert!(!hung, "neither answered nor closed");
    introduced(address).expect("the node answers another client");
}
