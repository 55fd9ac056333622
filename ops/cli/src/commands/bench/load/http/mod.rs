//! Requests over HTTP/1.1, one connection a slot, one request at a time on it.
//!
//! The head of all requests is the same text, so that a request costs one `write`, and its answer one `read` and the
//! parsing of its head. Nothing of an answer is looked at but its status and `Retry-After`; of an error also its kind.
//! A server may close a connection that was idle; that is noticed before a request is written, and is no error.

mod connection;

use super::LoadArgs;
use super::engine::Slot;
use super::events::Events;
use super::stats::Answer;
use crate::exit::{Exit, Failure};
use connection::{Broken, Connection, Response};
use futures::StreamExt;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Connections that are opened at once.
const OPENED_AT_ONCE: usize = 64;

/// What is asked of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Path {
    /// POST /produce, or /v1/topics/TOPIC/records with --topic
    Produce,
    /// POST /api/events: answered when the event is processed
    Ingest,
    /// POST /register_event: answered when the event is durable
    Register,
}

impl Path {
    /// The path itself.
    pub fn of(self, topic: Option<&str>) -> String {
        match (self, topic) {
            (Path::Produce, None) => "/produce".to_owned(),
            (Path::Produce, Some(topic)) => format!("/v1/topics/{topic}/records"),
            (Path::Ingest, _) => "/api/events".to_owned(),
            (Path::Register, _) => "/register_event".to_owned(),
        }
    }
}

/// A gateway: `host:port` of `http://host:port/`.
///
/// # Errors
/// Says what an address is.
pub fn parse_url(url: &str) -> Result<String, String> {
    if url.starts_with("https://") {
        return Err(format!(
            "{url}: TLS is not spoken here; give the address of the gateway itself, http://…"
        ));
    }
    let host = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
    match port.parse::<u16>() {
        Ok(port) if !name.is_empty() && !name.contains('/') => Ok(format!("{name}:{port}")),
        _ => Err(format!("`{url}` is no address of a gateway such as http://127.0.0.1:8080")),
    }
}

/// What all slots share.
struct Target {
    addresses: Vec<String>,
    /// Of each address, up to the body, with its length.
    heads: Vec<Vec<u8>>,
    events: Events,
    batch: u64,
    connect_timeout: Duration,
}

/// One connection.
pub struct HttpSlot {
    target: Arc<Target>,
    /// Which address this slot uses; another one when nobody answers there.
    at: usize,
    connection: Option<Connection>,
    request: Vec<u8>,
}

/// Creates the topic if need be, and opens the connections.
///
/// # Errors
/// Where nobody answers, or the topic cannot be had.
pub async fn prepare(args: &LoadArgs, events: Events, timeout: Duration) -> Result<Vec<HttpSlot>, Failure> {
    for address in &args.url {
        ready(address, timeout).await?;
    }
    if let (Path::Produce, Some(topic)) = (args.path, &args.topic) {
        create_topic(&args.url[0], topic, args, timeout).await?;
    }
    let path = args.path.of(args.topic.as_deref());
    let length = events.body_bytes(args.batch);
    let head = |address: &String| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let target = Arc::new(Target {
        heads: args.url.iter().map(|address| head(address).into_bytes()).collect(),
        addresses: args.url.clone(),
        events,
        batch: args.batch,
        connect_timeout: timeout,
    });
    let slots = (0..args.concurrency).map(|n| {
        let at = n as usize % target.addresses.len();
        let mut slot = HttpSlot { target: target.clone(), at, connection: None, request: Vec::new() };
        async move { slot.connect().await.map(|()| slot) }
    });
    let opened: Vec<_> = futures::stream::iter(slots).buffer_unordered(OPENED_AT_ONCE).collect().await;
    let opened: Result<Vec<_>, Broken> = opened.into_iter().collect();
    opened.map_err(|broken| {
        let message = format_args!("{} connections cannot be opened: {broken}", args.concurrency);
        Failure::new(Exit::Unreachable, message)
            .hint("lower --concurrency, or raise the gateway's max.connections and the limit of open files")
    })
}

/// Asks a gateway whether it is ready.
async fn ready(address: &str, timeout: Duration) -> Result<(), Failure> {
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let answer = ask(address, request.as_bytes(), timeout).await.map_err(|broken| {
        Failure::new(Exit::Unreachable, format_args!("nobody answers at http://{address}: {broken}")).hint(
            "start a cluster with `strandline dev`, or name a gateway that runs: --url http://HOST:PORT",
        )
    })?;
    if answer.status == 200 {
        return Ok(());
    }
    let message = format_args!("http://{address} is not ready: {}", kind_of(&answer));
    Err(Failure::new(Exit::Unreachable, message).hint("`strandline cluster status` shows what is missing"))
}

async fn create_topic(address: &str, topic: &str, args: &LoadArgs, timeout: Duration) -> Result<(), Failure> {
    let configs: serde_json::Map<String, Value> =
        args.configs.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    let mut wanted = serde_json::json!({"name": topic, "partitions": args.partitions, "configs": configs});
    if let Some(replication) = args.replication {
        wanted["replicationFactor"] = replication.into();
    }
    let body = wanted.to_string();
    let request = format!(
        "POST /v1/topics HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let failed = |why: String| {
        Failure::new(
            Exit::Refused,
            format_args!("topic {topic} cannot be created at http://{address}: {why}"),
        )
    };
    match ask(address, request.as_bytes(), timeout).await {
        Ok(Response { status: 201 | 409, .. }) => Ok(()),
        Ok(answer) => Err(failed(kind_of(&answer))),
        Err(broken) => Err(failed(broken.to_string())),
    }
}

/// One request on a connection of its own.
async fn ask(address: &str, request: &[u8], timeout: Duration) -> Result<Response, Broken> {
    let asked = async {
        let mut connection = Connection::open(address).await?;
        connection.exchange(request).await
    };
    tokio::time::timeout(timeout, asked).await.unwrap_or(Err(Broken::Slow))
}

/// A short name of an answer that is an error: its status, and what the problem document calls it.
fn kind_of(answer: &Response) -> String {
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    // From the network to a terminal: nothing but the letters that the gateway's kinds have.
    let plain = |kind: &&str| kind.len() < 64 && kind.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    match document["type"].as_str().and_then(|kind| kind.rsplit('#').next()).filter(plain) {
        Some(kind) => format!("HTTP {} {kind}", answer.status),
        None => format!("HTTP {}", answer.status),
    }
}

impl HttpSlot {
    /// Opens a connection to the slot's gateway, or to the next one that answers.
    async fn connect(&mut self) -> Result<(), Broken> {
        let mut tried = Err(Broken::Slow);
        for _ in 0..self.target.addresses.len() {
            let open = Connection::open(&self.target.addresses[self.at]);
            tried =
                tokio::time::timeout(self.target.connect_timeout, open).await.unwrap_or(Err(Broken::Slow));
            match tried {
                Ok(connection) => {
                    self.connection = Some(connection);
                    return Ok(());
                }
                Err(_) => self.at = (self.at + 1) % self.target.addresses.len(),
            }
        }
        tried.map(drop)
    }
}

impl Slot for HttpSlot {
    async fn send(&mut self, n: u64) -> Answer {
        // Out of its place while in use: one that is left in the middle of an answer is not used again.
        let usable = self.connection.take().filter(Connection::is_open);
        let mut connection = match usable {
            Some(connection) => connection,
            None => match self.connect().await {
                Ok(()) => self.connection.take().expect("it was just opened"),
                Err(broken) => return Answer::Failed(format!("no connection: {broken}")),
            },
        };
        let target = &*self.target;
        self.request.clear();
        self.request.extend_from_slice(&target.heads[self.at]);
        target.events.body(n, target.batch, &mut self.request);
        let answer = match connection.exchange(&self.request).await {
            Err(broken) => return Answer::Failed(broken.to_string()),
            Ok(answer) => answer,
        };
        if answer.keep_alive {
            self.connection = Some(connection);
        }
        match answer.status {
            200 | 202 => Answer::Acknowledged,
            429 => Answer::Refused(answer.retry_after),
            _ => Answer::Failed(kind_of(&answer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_gateways_are_read_with_and_without_the_scheme() {
        for (url, host) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "127.0.0.1:8080"),
            ("gateway:81", "gateway:81"),
            ("http://gateway", "gateway:80"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(parse_url(url).as_deref(), Ok(host));
        }
        for wrong in ["https://x:1", "", "http://", "http://x/produce", "x:y"] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }
}
