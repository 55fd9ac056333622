//! The Produce stream's requests and answers: what travels, and what an answer means for a batch.

use super::accumulator::Slot;
use super::call;
use super::delivery::Landed;
use super::window::{Outcome, Ticket, Verdict};
use crate::connection::Connection;
use crate::error::{Error, ErrorCode, ErrorKind};
use crate::stream::Kind;
use crate::types::{TopicId, id_from};
use futures::future::BoxFuture;
use std::time::Duration;
use strandline_wire::produce::BATCH_BYTES_MAX;
use strandline_wire::v1;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

/// A partition's batch in a request.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) slot: Slot,
    pub(super) ticket: Ticket,
    pub(super) topic_id: TopicId,
    pub(super) partition: i32,
}

/// The Produce stream.
pub(super) struct Produce;

impl Kind for Produce {
    type Request = v1::ProduceRequest;
    type Response = v1::ProduceResponse;
    type Ticket = Vec<Part>;

    fn open(
        connection: Connection,
        requests: ReceiverStream<v1::ProduceRequest>,
    ) -> BoxFuture<'static, Result<Response<Streaming<v1::ProduceResponse>>, Status>> {
        Box::pin(call::open(connection.channel, requests))
    }

    fn request_id(request: &v1::ProduceRequest) -> u64 {
        request.request_id
    }

    fn response_id(response: &v1::ProduceResponse) -> u64 {
        response.request_id
    }

    fn fits(parts: &Vec<Part>, response: &v1::ProduceResponse) -> bool {
        parts.len() == response.partitions.len()
            && parts.iter().zip(&response.partitions).all(|(part, result)| {
                part.partition == result.partition && id_from(&result.topic_id) == Some(part.topic_id)
            })
    }
}

/// Why a batch is not sent at all.
pub(super) fn too_large(bytes: usize) -> Error {
    Error::new(
        ErrorKind::RecordTooLarge,
        format!(
            "the record makes a batch of {bytes} bytes; the largest that can be sent has {BATCH_BYTES_MAX}"
        ),
    )
}

/// Why a batch ended at the delivery time-out.
pub(super) fn expired(timeout: Duration, verdict: Verdict, last: Option<Error>) -> Error {
    let error = match verdict {
        Verdict::Indeterminate => {
            Error::indeterminate(format!("not acknowledged within {timeout:?}; the record may be in the log"))
        }
        _ => Error::timed_out(format!("not written within {timeout:?}; the record is not in the log")),
    };
    match last {
        Some(last) => error.because(&last),
        None => error,
    }
}

/// Why a batch ended with its window's epoch.
pub(super) fn ended_unacknowledged(verdict: Verdict, last: Option<Error>) -> Error {
    let error = match verdict {
        Verdict::Indeterminate => Error::indeterminate(
            "the outcome of an earlier attempt is unknown and the batch cannot be sent again safely; the record may be in the log",
        ),
        _ => Error::timed_out("the record was not written"),
    };
    match last {
        Some(last) => error.because(&last),
        None => error,
    }
}

/// What came back for one batch.
pub(super) enum Answer<'a> {
    Result(&'a v1::ProducePartitionResult),
    None(&'a Error),
}

/// In order, and without what no batch has.
fn repeats(told: &[v1::RepeatedRecord]) -> Box<[(u32, i64)]> {
    let place = |repeat: &v1::RepeatedRecord| Some((u32::try_from(repeat.index).ok()?, repeat.first_offset));
    let mut repeats: Vec<_> = told.iter().filter_map(place).collect();
    repeats.sort_unstable();
    repeats.dedup_by_key(|(index, _)| *index);
    repeats.into()
}

/// What an answer means for the attempt.
pub(super) fn judge(answer: &Answer<'_>) -> (Outcome, Option<Landed>, Option<Error>) {
    let result = match answer {
        Answer::None(error) => return (Outcome::Unknown, None, Some((*error).clone())),
        Answer::Result(result) => result,
    };
    let Some(error) = Error::from_wire(result.error.as_ref()) else {
        let landed = Landed {
            base_offset: (result.base_offset >= 0).then_some(result.base_offset),
            log_append_time_ms: (result.log_append_time_ms >= 0).then_some(result.log_append_time_ms),
            duplicate: result.duplicate,
            repeats: repeats(&result.repeats),
        };
        return (Outcome::Appended, Some(landed), None);
    };
    let code = error.code().expect("from a broker");
    let outcome = match code {
        // Appended before, longer ago than the broker remembers offsets.
        ErrorCode::DuplicateSequence => {
            let landed = Landed {
                base_offset: None,
                log_append_time_ms: None,
                duplicate: true,
                repeats: Box::default(),
            };
            return (Outcome::Appended, Some(landed), None);
        }
        ErrorCode::OutOfOrderSequence => Outcome::OutOfOrder,
        ErrorCode::UnknownProducerId | ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch => {
            Outcome::IdentityLost
        }
        _ if error.may_have_happened() => Outcome::Unknown,
        _ if error.is_retriable() => Outcome::NotAppended,
        _ => Outcome::Rejected,
    };
    (outcome, None, Some(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(code: ErrorCode) -> Outcome {
        let error = Some(v1::Error { code: code as i32, ..Default::default() });
        judge(&Answer::Result(&v1::ProducePartitionResult { error, ..Default::default() })).0
    }

    #[test]
    fn an_answer_that_leaves_it_open_is_never_taken_for_a_refusal() {
        for number in 1..=44 {
            let code = ErrorCode::try_from(number).unwrap();
            let open = crate::error::code_may_have_happened(code);
            assert_eq!(outcome(code) == Outcome::Unknown, open, "{code:?}");
        }
        assert_eq!(outcome(ErrorCode::NotLeader), Outcome::NotAppended);
        assert_eq!(outcome(ErrorCode::NotEnoughReplicas), Outcome::NotAppended);
        assert_eq!(outcome(ErrorCode::RecordTooLarge), Outcome::Rejected);
        assert_eq!(outcome(ErrorCode::OutOfOrderSequence), Outcome::OutOfOrder);
        assert_eq!(outcome(ErrorCode::UnknownProducerId), Outcome::IdentityLost);
    }

    #[test]
    fn a_duplicate_older_than_the_window_is_written_at_an_offset_that_nobody_knows() {
        let error = Some(v1::Error { code: ErrorCode::DuplicateSequence as i32, ..Default::default() });
        let result = v1::ProducePartitionResult { error, ..Default::default() };
        let (outcome, landed, error) = judge(&Answer::Result(&result));
        assert_eq!(outcome, Outcome::Appended);
        assert_eq!(
            landed,
            Some(Landed {
                base_offset: None,
                log_append_time_ms: None,
                duplicate: true,
                repeats: Box::default()
            })
        );
        assert!(error.is_none());
    }
}
