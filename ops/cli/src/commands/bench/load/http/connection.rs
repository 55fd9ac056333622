//! One HTTP/1.1 connection: a request out, its answer in. No more of HTTP than a load generator needs, read as coming
//! from a stranger: every length is bounded before anything is kept.

use bytes::BytesMut;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Status line and headers of an answer.
const MOST_HEAD: usize = 64 << 10;
const MOST_HEADERS: usize = 64;
/// What is kept of the body of an error; more is read and forgotten.
const KEPT: usize = 4096;
/// No body is larger.
const MOST_BODY: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum Broken {
    Io(std::io::Error),
    /// It ended before the answer did.
    Closed,
    /// What came is not HTTP/1.1.
    NotHttp,
    /// Nothing came in time.
    Slow,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // The kind alone: messages with addresses and numbers in them would each be an error of their own.
            Broken::Io(error) => write!(f, "{}", error.kind()),
            Broken::Closed => f.write_str("connection closed before the answer"),
            Broken::NotHttp => f.write_str("the answer is not HTTP/1.1"),
            Broken::Slow => f.write_str("no answer in time"),
        }
    }
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Broken::Io(error)
    }
}

/// An answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// The connection may be used again.
    pub keep_alive: bool,
    /// Of an error, the first 4 KiB; otherwise empty.
    pub body: Vec<u8>,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Known(u64),
    Chunked,
    UntilClosed,
}

/// A connection between two requests.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    pub async fn open(address: &str) -> Result<Connection, Broken> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: BytesMut::with_capacity(4096) })
    }

    /// Nothing has come since the last answer, not even the end of the connection.
    pub fn is_open(&self) -> bool {
        let would_block = |result: std::io::Result<usize>| {
            result.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        };
        self.buffer.is_empty() && would_block(self.stream.try_read(&mut [0]))
    }

    /// Sends a request and reads its answer to the end.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Response, Broken> {
        self.stream.write_all(request).await?;
        let (mut response, length) = self.head().await?;
        match length {
            Length::Known(bytes) => self.known(bytes, &mut response).await?,
            Length::Chunked => self.chunks(&mut response).await?,
            Length::UntilClosed => {
                response.keep_alive = false;
                while self.more().await.is_ok() {
                    keep(&mut response, &self.buffer);
                    self.buffer.clear();
                }
            }
        }
        Ok(response)
    }

    async fn more(&mut self) -> Result<(), Broken> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(Broken::Closed),
            _ => Ok(()),
        }
    }

    /// Reads up to the body, past interim answers (1xx).
    async fn head(&mut self) -> Result<(Response, Length), Broken> {
        loop {
            if !self.buffer.is_empty()
                && let Some((bytes, response, length)) = parse_head(&self.buffer)?
            {
                let _ = self.buffer.split_to(bytes);
                if response.status >= 200 {
                    return Ok((response, length));
                }
                continue;
            }
            if self.buffer.len() > MOST_HEAD {
                return Err(Broken::NotHttp);
            }
            self.more().await?;
        }
    }

    async fn known(&mut self, bytes: u64, response: &mut Response) -> Result<(), Broken> {
        if bytes > MOST_BODY {
            return Err(Broken::NotHttp);
        }
        let mut left = bytes;
        loop {
            let take = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            keep(response, &self.buffer[..take]);
            let _ = self.buffer.split_to(take);
            left -= take as u64;
            if left == 0 {
                return Ok(());
            }
            self.more().await?;
        }
    }

    async fn chunks(&mut self, response: &mut Response) -> Result<(), Broken> {
        loop {
            let (line, size) = loop {
                match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete(found)) => break found,
                    Ok(httparse::Status::Partial) if self.buffer.len() <= MOST_HEAD => self.more().await?,
                    _ => return Err(Broken::NotHttp),
                }
            };
            let _ = self.buffer.split_to(line);
            if size > MOST_BODY {
                return Err(Broken::NotHttp);
            }
            if size == 0 {
                return self.trailers().await;
            }
            self.known(size, response).await?;
            // The end of the chunk's line.
            self.known(2, &mut Response::default()).await?;
        }
    }

    /// Reads past what may follow the last chunk: header lines up to an empty one.
    async fn trailers(&mut self) -> Result<(), Broken> {
        loop {
            match self.buffer.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    let line = self.buffer.split_to(end + 1);
                    if line.trim_ascii().is_empty() {
                        return Ok(());
                    }
                }
                None if self.buffer.len() <= MOST_HEAD => self.more().await?,
                None => return Err(Broken::NotHttp),
            }
        }
    }
}

fn keep(response: &mut Response, bytes: &[u8]) {
    if response.status >= 300 {
        let room = KEPT - response.body.len();
        response.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// The bytes of the head, what it says, and how long the body is; `None`: there is more to come.
fn parse_head(bytes: &[u8]) -> Result<Option<(usize, Response, Length)>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(parsed) = head.parse(bytes) else { return Err(Broken::NotHttp) };
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let status = head.code.unwrap_or(0);
    let mut response = Response { status, keep_alive: head.version == Some(1), ..Response::default() };
    let mut body = match status {
        100..200 | 204 | 304 => Length::Known(0),
        _ => Length::UntilClosed,
    };
    for header in head.headers.iter() {
        let text = || std::str::from_utf8(header.value).map_err(|_| Broken::NotHttp).map(str::trim);
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = text()?.parse().map_err(|_| Broken::NotHttp)?;
            if body == Length::UntilClosed {
                body = Length::Known(length);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            body = Length::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            response.keep_alive &= !text()?.eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("retry-after") {
            response.retry_after = text()?.parse().ok().map(Duration::from_secs);
        }
    }
    Ok(Some((length, response, body)))
}

#[cfg(test)]
mod tests;
