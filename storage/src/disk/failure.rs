//! Errors of both disks name the operation and the path, and keep the kind of their cause.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What was tried, where, and why it failed; the cause inside the `io::Error`.
#[derive(Debug)]
struct Failure {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.operation, self.path.display(), self.source)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

pub(super) fn failed(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> io::Error {
    let source = source.into();
    io::Error::new(source.kind(), Failure { operation, path: path.to_owned(), source })
}
