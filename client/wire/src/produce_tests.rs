use super::*;
use crate::v1::Acks;
use proptest::prelude::*;

const LIMIT: usize = 1 << 20;

fn requests() -> impl Strategy<Value = Vec<ProduceRequest>> {
    let partition = (
        proptest::collection::vec(any::<u8>(), 0..20),
        any::<i32>(),
        any::<i32>(),
        proptest::collection::vec(any::<u8>(), 0..3000),
    )
        .prop_map(|(topic_id, partition, leader_epoch, batches)| ProducePartition {
            topic_id: topic_id.into(),
            partition,
            leader_epoch,
            batches: batches.into(),
        });
    let request = (any::<u64>(), 0..3_i32, any::<u32>(), proptest::collection::vec(partition, 0..5))
        .prop_map(|(request_id, acks, timeout_ms, partitions)| ProduceRequest {
            request_id,
            acks,
            timeout_ms,
            partitions,
        });
    proptest::collection::vec(request, 0..4)
}

/// As tonic puts it on the wire.
fn plain(request: &ProduceRequest) -> Vec<u8> {
    let message = request.encode_to_vec();
    let mut out = vec![0];
    out.extend((message.len() as u32).to_be_bytes());
    out.extend(message);
    out
}

/// Everything that comes out of these bytes, cut at these sizes in turn.
fn read(mut bytes: Bytes, sizes: &[usize]) -> Result<(Vec<ProduceRequest>, bool), Status> {
    let (mut requests, mut taken) = (Requests::new(LIMIT), Vec::new());
    for size in sizes.iter().cycle() {
        while let Some(request) = requests.take()? {
            taken.push(request);
        }
        if bytes.is_empty() {
            break;
        }
        requests.push(bytes.split_to((*size).min(bytes.len())));
    }
    Ok((taken, requests.is_between()))
}

proptest! {
    #[test]
    fn in_pieces_a_request_has_the_bytes_that_it_has_in_one(requests in requests()) {
        for request in requests {
            prop_assert_eq!(Vec::from(pieces(request.clone())).concat(), plain(&request));
        }
    }

    #[test]
    fn however_a_stream_is_cut_the_same_requests_come_out(
        requests in requests(),
        sizes in proptest::collection::vec(1_usize..5000, 1..6),
    ) {
        let bytes: Vec<u8> = requests.iter().flat_map(plain).collect();
        prop_assert_eq!(read(bytes.into(), &sizes).unwrap(), (requests, true));
    }

    #[test]
    fn whatever_arrives_is_a_request_or_an_error(
        bytes in proptest::collection::vec(prop_oneof![4 => 0_u8..40, 1 => any::<u8>()], 0..600),
        sizes in proptest::collection::vec(1_usize..100, 1..4),
    ) {
        let _ = read(bytes.into(), &sizes);
    }
}

#[test]
fn a_batch_is_neither_copied_on_its_way_out_nor_where_it_came_in_one_frame() {
    let batch = Bytes::from(vec![7; 10_000]);
    let partition = ProducePartition { batches: batch.clone(), ..Default::default() };
    let request = ProduceRequest { partitions: vec![partition.clone(), partition], ..Default::default() };
    let out = pieces(request);
    assert_eq!(out.iter().filter(|piece| piece.as_ptr() == batch.as_ptr()).count(), 2);
    let mut requests = Requests::new(LIMIT);
    out.into_iter().for_each(|piece| requests.push(piece));
    let request = requests.take().unwrap().unwrap();
    assert!(request.partitions.iter().all(|partition| partition.batches.as_ptr() == batch.as_ptr()));
    assert!(requests.is_between());
}

#[test]
fn a_message_above_the_limit_a_compressed_one_and_one_that_is_none_are_refused() {
    let refused = |bytes: Vec<u8>| read(bytes.into(), &[9]).unwrap_err().code();
    let mut too_long = vec![0];
    too_long.extend((LIMIT as u32 + 1).to_be_bytes());
    assert_eq!(refused(too_long), tonic::Code::OutOfRange);
    let acks = Acks::Leader as i32;
    let mut compressed = plain(&ProduceRequest { acks, ..Default::default() });
    compressed[0] = 1;
    assert_eq!(refused(compressed), tonic::Code::Unimplemented);
    assert_eq!(refused(vec![0, 0, 0, 0, 1, 0xff]), tonic::Code::InvalidArgument);
}

#[test]
fn a_stream_may_end_only_between_requests() {
    let whole: Bytes = plain(&ProduceRequest { request_id: 300, ..Default::default() }).into();
    for end in 1..whole.len() {
        assert!(!read(whole.slice(..end), &[2]).unwrap().1, "after {end} bytes");
    }
}
