//! What `shape::check` lets through is decoded without a panic and without memory beyond what its bytes can hold.
#![no_main]

use bytes::Bytes;
use kafka_protocol::messages::RequestKind;
use strandline_node::fuzzing::{checked, row};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((served, version, body)) = row(data)
        && checked(served, version, body)
    {
        let _ = RequestKind::decode(served.key, &mut Bytes::copy_from_slice(body), version);
    }
});
