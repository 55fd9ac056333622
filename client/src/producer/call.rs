//! Opens the Produce stream as tonic's generated client would, but for the request's body: batches go to HTTP/2 as
//! they are instead of being copied into messages first ([`strandline_wire::produce`]).

use crate::connection::MAX_MESSAGE_BYTES;
use bytes::Bytes;
use http_body::{Body, Frame};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use strandline_wire::codec::RoomyCodec;
use strandline_wire::{produce, v1};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::Codec;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Version, header};
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

pub(super) async fn open(
    mut channel: Channel,
    requests: ReceiverStream<v1::ProduceRequest>,
) -> Result<Response<Streaming<v1::ProduceResponse>>, Status> {
    let body = tonic::body::Body::new(RequestBody { requests, pieces: VecDeque::new() });
    let request = Request::post(produce::PATH)
        .version(Version::HTTP_2)
        .header(header::TE, "trailers")
        .header(header::CONTENT_TYPE, "application/grpc")
        .body(body)
        .expect("made of constants");
    let failed = |error: tonic::transport::Error| Status::from_error(error.into());
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.map_err(failed)?;
    let (head, body) = channel.call(request).await.map_err(failed)?.into_parts();
    // A refusal is all in the head.
    if let Some(status) = Status::from_header_map(&head.headers)
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    let decoder = RoomyCodec::<v1::ProduceRequest, v1::ProduceResponse>::default().decoder();
    Ok(Response::new(Streaming::new_response(decoder, body, head.status, None, Some(MAX_MESSAGE_BYTES))))
}

/// Requests in the pieces that they are sent in. HTTP/2 takes the next when it has room for it.
struct RequestBody {
    requests: ReceiverStream<v1::ProduceRequest>,
    pieces: VecDeque<Bytes>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match ready!(Pin::new(&mut self.requests).poll_next(cx)) {
                Some(request) => self.pieces = produce::pieces(request),
                None => return Poll::Ready(None),
            }
        }
    }
}
