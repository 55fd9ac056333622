//! Options of a producer, shared by `produce` and `bench`.

use crate::cli::{parse_size, parse_time};
use crate::exit::Failure;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::time::Duration;
use strandline_client::{Acks, Client, Compression, Producer};

#[derive(Clone, Debug, clap::Args)]
pub struct ProducerArgs {
    /// When a record counts as written: on disk on every in-sync replica, on disk at the leader, or at once
    #[arg(long, default_value = "all", value_parser = acks(), value_name = "WHEN")]
    pub acks: Acks,
    /// Codec of the batches
    #[arg(long, default_value = "none", value_parser = compression(), value_name = "CODEC")]
    pub compression: Compression,
    /// How long a batch that is not full waits for more records
    #[arg(long, default_value = "5ms", value_parser = parse_time, value_name = "TIME")]
    pub linger: Duration,
    /// Size at which a batch is full, before compression
    #[arg(long, default_value = "64KiB", value_parser = parse_size, value_name = "BYTES")]
    pub batch_bytes: u64,
    /// Memory for records that are not acknowledged yet; reading waits while it is full
    #[arg(long, default_value = "32MiB", value_parser = parse_size, value_name = "BYTES")]
    pub buffer_bytes: u64,
    /// How long a record may take to be acknowledged, with all retries, before it has failed
    #[arg(long, default_value = "120s", value_parser = parse_time, value_name = "TIME")]
    pub delivery_timeout: Duration,
}

impl ProducerArgs {
    /// Starts a producer with these options.
    pub fn build(&self, client: &Client) -> Result<Producer, Failure> {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let producer = client
            .producer()
            .acks(self.acks)
            .compression(self.compression)
            .linger(self.linger)
            .batch_bytes(size(self.batch_bytes))
            .buffer_bytes(size(self.buffer_bytes))
            .auto_create_topics(true)
            .delivery_timeout(self.delivery_timeout);
        Ok(producer.build()?)
    }
}

pub fn acks() -> impl TypedValueParser<Value = Acks> {
    PossibleValuesParser::new(["all", "leader", "none"]).map(|name| name.parse().expect("one of the names"))
}

fn compression() -> impl TypedValueParser<Value = Compression> {
    PossibleValuesParser::new(Compression::ALL.map(Compression::name))
        .map(|name| name.parse().expect("one of the names"))
}
