//! Bakes the commit into the program: the report of a failure names what it was found in.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rustc-env=STRANDLINE_SIM_COMMIT={}", commit().unwrap_or_else(|| "unknown".to_owned()));
    // What makes the answer another: a commit or checkout, and a change of any source.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).map(PathBuf::from)
        && log.exists()
    {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../Cargo.lock");
    watch_sources(Path::new(".."), 3);
}

/// The abbreviated hash, marked when the tree differs from it; `None` outside of a checkout.
fn commit() -> Option<String> {
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?;
    let dirty = !git(&["status", "--porcelain"])?.is_empty();
    Some(if dirty { format!("{hash}-dirty") } else { hash })
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Cargo looks through a directory that it is told of; these are all that hold sources of the workspace.
fn watch_sources(directory: &Path, depth: usize) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if name == "src" {
            println!("cargo:rerun-if-changed={}", path.display());
        } else if depth > 0 && name != "target" && !name.starts_with('.') {
            watch_sources(&path, depth - 1);
        }
    }
}
