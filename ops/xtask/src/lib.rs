//! What `cargo xtask` does beyond lists of commands, where its tests can reach it.

pub mod mutants;

use std::path::Path;

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("ops/xtask lies in the workspace")
}
