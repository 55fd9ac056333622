//! Protocol fronts: each decodes its wire format, asks the broker, and encodes the answer. A front never
//! touches a log.

pub mod grpc;
pub mod kafka;
