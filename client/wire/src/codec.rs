//! Protobuf on gRPC, with room made for each message before it is written. tonic's own codec lets the buffer grow
//! while it is filled: a message of a megabyte of record bytes would be copied several times on its way through
//! the smaller buffers.

use prost::Message;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// The codec of every service in this crate.
#[derive(Clone, Copy, Debug)]
pub struct RoomyCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for RoomyCodec<T, U> {
    fn default() -> Self {
        RoomyCodec(PhantomData)
    }
}

impl<T, U> Codec for RoomyCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = RoomyEncoder<T>;
    type Decoder = RoomyDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        RoomyEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        RoomyDecoder(PhantomData)
    }
}

/// See [`RoomyCodec`].
#[derive(Clone, Copy, Debug)]
pub struct RoomyEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for RoomyEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        item.encode_raw(buffer);
        Ok(())
    }
}

/// See [`RoomyCodec`].
#[derive(Clone, Copy, Debug)]
pub struct RoomyDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for RoomyDecoder<U> {
    type Item = U;
    type Error = Status;

    /// Byte fields are slices of the received buffer, not copies.
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message =
            U::decode(buffer).map_err(|e| Status::invalid_argument(format!("not a message: {e}")))?;
        Ok(Some(message))
    }
}
