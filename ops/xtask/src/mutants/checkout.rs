//! The scratch checkout in which mutants live: a worktree of its own with a target directory of its own, both below
//! `target/`, kept for the next time. It holds what is committed; what is not does not take part.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Debug)]
pub struct Checkout {
    dir: PathBuf,
    target: PathBuf,
    profile: String,
}

impl Checkout {
    /// A clean checkout of `HEAD` of the repository at `root`.
    ///
    /// # Errors
    /// Git is missing, or fails.
    pub fn make(root: &Path, profile: &str) -> io::Result<Checkout> {
        let scratch = root.join("target/mutants");
        let checkout = Checkout {
            dir: scratch.join("checkout"),
            target: scratch.join("target"),
            profile: profile.to_owned(),
        };
        let head = git(root, ["rev-parse", "HEAD"])?;
        if !checkout.dir.join(".git").exists() {
            // One that was removed by hand is still on git's list.
            git(root, ["worktree", "prune"])?;
            let dir = checkout.dir.as_os_str();
            git(root, [OsStr::new("worktree"), "add".as_ref(), "--detach".as_ref(), dir, head.as_ref()])?;
        }
        checkout.revert()?;
        git(&checkout.dir, ["checkout", "--quiet", "--detach", &head])?;
        Ok(checkout)
    }

    /// # Errors
    /// It does not apply, with git's words.
    pub fn apply(&self, patch: &Path) -> io::Result<()> {
        apply(&self.dir, patch, &[])
    }

    /// Takes back whatever was applied.
    ///
    /// # Errors
    /// Git fails.
    pub fn revert(&self) -> io::Result<()> {
        git(&self.dir, ["reset", "--quiet", "--hard"]).map(drop)
    }

    /// Builds the simulator as the checkout is now and keeps it under `name`, so that the next build leaves it alone.
    ///
    /// # Errors
    /// Cargo cannot be started, or the build fails.
    pub fn build(&self, name: &str) -> io::Result<PathBuf> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(["build", "--quiet", "--locked", "--package", "strandline-sim", "--bin", "strandline-sim"])
            .args(["--profile", &self.profile])
            .current_dir(&self.dir)
            .env("CARGO_TARGET_DIR", &self.target)
            // A mutant changes a line or two of one crate.
            .env("CARGO_INCREMENTAL", "1")
            .stdin(Stdio::null());
        let status = cargo.status()?;
        if !status.success() {
            return Err(io::Error::other(format!("the build of {name} failed ({status})")));
        }
        let built = match self.profile.as_str() {
            "dev" => self.target.join("debug"),
            profile => self.target.join(profile),
        };
        let kept = self.target.join(name);
        std::fs::copy(built.join("strandline-sim"), &kept)?;
        Ok(kept)
    }

    /// For files that last as long as a run.
    pub fn scratch_file(&self, name: &str) -> PathBuf {
        self.target.join(name)
    }
}

/// Applies a patch to the tree at `dir`, or sees whether it could be. One line of context may be gone.
///
/// # Errors
/// It does not apply, or git cannot be run.
pub fn apply(dir: &Path, patch: &Path, options: &[&str]) -> io::Result<()> {
    let mut arguments: Vec<&OsStr> = vec!["apply".as_ref(), "-C2".as_ref()];
    arguments.extend(options.iter().map(OsStr::new));
    arguments.push(patch.as_os_str());
    git(dir, arguments).map(drop)
}

fn git<A: AsRef<OsStr>>(dir: &Path, arguments: impl IntoIterator<Item = A>) -> io::Result<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).args(arguments).stdin(Stdio::null());
    let output =
        command.output().map_err(|error| io::Error::other(format!("git cannot be started: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{command:?}: {said}")))
}
