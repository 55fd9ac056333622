//! The trace of a run: one line for each thing that happened, in the order in which it happened. Two runs of one
//! seed with one build give the same bytes (I20); the hash stands for them where nobody reads them.
//!
//! What goes into it: faults, roles, what clients did and what they were told ([`Trace::note`], always), every write
//! to the simulated network and every log line of the nodes ([`Trace::detail`], when asked for).

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// Notes kept for the report of a failure.
const RECENT: usize = 400;

/// How much is put on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Notes only.
    Notes,
    /// Also every network write and every log line.
    Everything,
}

/// Shared by everything in one run.
#[derive(Clone)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
    detail: Detail,
}

struct Inner {
    now_us: u64,
    digest: crc_fast::Digest,
    lines: u64,
    file: Option<BufWriter<std::fs::File>>,
    failed: Option<io::Error>,
    recent: VecDeque<String>,
    line: String,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

impl Trace {
    /// A trace that is only hashed, and its newest notes kept.
    pub fn new(detail: Detail) -> Trace {
        let inner = Inner {
            now_us: 0,
            digest: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme),
            lines: 0,
            file: None,
            failed: None,
            recent: VecDeque::new(),
            line: String::new(),
        };
        Trace { inner: Arc::new(Mutex::new(inner)), detail }
    }

    /// Also written to `path`.
    #[allow(clippy::disallowed_methods, reason = "the runner's own file, not a node's")]
    pub fn to_file(self, path: &Path) -> io::Result<Trace> {
        self.inner.lock().file = Some(BufWriter::new(std::fs::File::create(path)?));
        Ok(self)
    }

    /// Simulated time, in microseconds since the start, that the next lines carry.
    pub fn set_now(&self, now_us: u64) {
        self.inner.lock().now_us = now_us;
    }

    pub fn now_us(&self) -> u64 {
        self.inner.lock().now_us
    }

    /// Whether [`Trace::detail`] does anything: lines that cost something to make need not be made.
    pub fn wants_detail(&self) -> bool {
        self.detail >= Detail::Everything
    }

    /// Something worth reading in the report of a failure. `who` is a host, or what acted on hosts.
    pub fn note(&self, who: &str, what: fmt::Arguments<'_>) {
        self.inner.lock().line(who, what, true);
    }

    /// Something only a reader of the whole trace wants.
    pub fn detail(&self, who: &str, what: fmt::Arguments<'_>) {
        if self.wants_detail() {
            self.inner.lock().line(who, what, false);
        }
    }

    /// Hash of every byte so far, and the number of lines.
    pub fn hash(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.digest.finalize(), inner.lines)
    }

    /// The newest notes, oldest first.
    pub fn recent(&self) -> Vec<String> {
        self.inner.lock().recent.iter().cloned().collect()
    }

    /// # Errors
    /// The first error that writing the file met.
    pub fn finish(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if let Some(error) = inner.failed.take() {
            return Err(error);
        }
        inner.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Inner {
    fn line(&mut self, who: &str, what: fmt::Arguments<'_>, keep: bool) {
        use fmt::Write as _;
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        let (s, us) = (self.now_us / 1_000_000, self.now_us % 1_000_000);
        writeln!(line, "{s:>4}.{us:06} {who:<10} {what}").expect("a String takes it");
        self.digest.update(line.as_bytes());
        self.lines += 1;
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(line.as_bytes())
        {
            self.failed.get_or_insert(error);
        }
        if keep {
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(line.trim_end().to_owned());
        }
        self.line = line;
    }
}

/// Where the nodes' and clients' log lines go: into the trace, under the simulated time.
#[derive(Clone)]
pub struct LogLines(pub Trace);

impl io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        for line in text.lines() {
            self.0.detail("log", format_args!("{line}"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for LogLines {
    type Writer = LogLines;

    fn make_writer(&self) -> LogLines {
        self.clone()
    }
}
