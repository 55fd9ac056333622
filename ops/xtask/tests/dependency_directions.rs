//! The directions of dependencies, as the design has them: who may name whom, what pure crates may use, and
//! which files may touch the outside world.
//!
//! A failure here is a question, not a chore: either the code is in the wrong place, or the design changes,
//! and then a note under `ops/docs/decisions/` says why before a row is added below.

#![allow(clippy::disallowed_methods, reason = "reads the sources of the workspace")]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crate → crates of this workspace that it may depend on (`strandline-` left out), in tests too.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("metrics", &[]),
    ("record", &[]),
    ("storage", &["metrics", "record"]),
    ("metadata", &["record"]),
    ("raft", &["metadata", "record", "storage"]),
    ("core", &["metadata", "record"]),
    ("wire", &["record"]),
    ("client", &["record", "wire"]),
    ("gateway", &["client", "metrics"]),
    ("node", &["core", "gateway", "metadata", "metrics", "raft", "record", "storage", "wire"]),
    ("cli", &["client", "gateway", "metrics", "node", "record"]),
    ("bench", &["client", "record"]),
    ("sim", &["client", "gateway", "metadata", "node", "raft", "record", "storage"]),
    ("model", &[]),
    ("xtask", &[]),
];

/// Pure crates → the only crates from outside that they may use. None of these has a clock, a socket, a file,
/// a thread or a source of randomness that such a crate could reach by accident.
const PURE_MAY_USE: &[(&str, &[&str])] = &[
    ("record", &["bytes", "crc-fast", "flate2", "lz4_flex", "serde", "snap", "thiserror", "uuid", "zstd"]),
    ("metadata", &["bytes", "crc-fast", "postcard", "rpds", "serde", "strsim", "thiserror", "uuid"]),
    ("core", &["bytes", "postcard", "regex", "serde", "thiserror", "uuid"]),
    ("wire", &["bytes", "prost", "tonic", "tonic-prost"]),
    ("metrics", &["prometheus-client"]),
];

/// Crates from outside that only one crate may name.
const ONLY: &[(&str, &str)] = &[
    ("turmoil", "sim"),
    ("openraft", "raft"),
    ("openraft-rt", "raft"),
    ("sled", "raft"),
    ("clap", "cli bench sim"),
    ("stateright", "model"),
];

/// Source directories of the product, where the outside world enters only through the seams below.
const PRODUCT: &[&str] = &[
    "storage/record/src",
    "storage/src",
    "raft/metadata/src",
    "raft/src",
    "node/core/src",
    "node/src",
    "node/gateway/src",
    "client/src",
    "ops/metrics/src",
];

/// Words that reach for the outside world → files that implement the seam for it.
const SEAMS: &[(&str, &[&str])] = &[
    // sled opens its own files; the design allows it behind `StateStore`.
    ("std::fs", &["storage/src/disk/real.rs", "raft/src/state_store/sled_store.rs"]),
    ("tokio::fs", &[]),
    ("std::net::Tcp", &[]),
    ("std::net::Udp", &[]),
    ("tokio::net", &["node/src/env.rs", "client/src/connection.rs"]),
    ("SystemTime::now", &["node/src/env.rs", "client/src/client.rs"]),
    // Measures syncs; nothing is decided by it.
    ("std::time::Instant::now", &["storage/src/disk/real.rs"]),
    ("std::thread", &["storage/src/worker.rs", "node/gateway/src/ingest/store/sqlite/worker.rs"]),
    ("thread::spawn", &["storage/src/worker.rs"]),
    ("thread::Builder", &["storage/src/worker.rs", "node/gateway/src/ingest/store/sqlite/worker.rs"]),
    ("spawn_blocking", &[]),
    ("rand::random", &["node/src/env.rs"]),
    ("rand::rng()", &["node/src/env.rs"]),
    ("Uuid::new_v4", &[]),
    ("std::env::var", &[]),
    ("futures::select!", &[]),
    ("cfg(sim)", &[]),
    ("feature = \"sim\"", &[]),
    ("todo!(", &[]),
    ("unimplemented!(", &[]),
    ("dbg!(", &[]),
];

/// Words that must not even be near a pure crate's code.
const IMPURE: &[&str] =
    &["tokio", "async fn", ".await", "Instant", "SystemTime", "HashMap", "HashSet", "rand::"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("ops/xtask lies in the workspace")
}

struct Package {
    name: String,
    /// Name and whether it is for tests only.
    dependencies: Vec<(String, bool)>,
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let of = |package: &Value| {
        let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
        Package {
            name: text(&package["name"]),
            dependencies: dependencies
                .iter()
                .filter(|d| d["kind"] != "build")
                .map(|d| (text(&d["name"]), d["kind"] == "dev"))
                .collect(),
        }
    };
    packages.iter().map(of).collect()
}

/// Without `strandline-`; `None` for a crate from outside.
fn ours(name: &str) -> Option<&str> {
    name.strip_prefix("strandline-")
}

fn violations(packages: &[Package]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = MAY_DEPEND_ON.iter().copied().collect();
    let pure: BTreeMap<&str, &[&str]> = PURE_MAY_USE.iter().copied().collect();
    let mut found = Vec::new();
    for package in packages {
        let name = ours(&package.name).unwrap_or(&package.name);
        let Some(may) = allowed.get(name) else {
            found.push(format!("{name} has no row in MAY_DEPEND_ON"));
            continue;
        };
        for (dependency, only_tests) in &package.dependencies {
            match ours(dependency) {
                Some(inner) if !may.contains(&inner) => {
                    found.push(format!("{name} must not depend on {inner}"))
                }
                Some(_) => {}
                None => {
                    if let Some((_, owner)) = ONLY.iter().find(|(only, _)| only == dependency)
                        && !owner.split(' ').any(|o| o == name)
                    {
                        found.push(format!("{name} must not name {dependency}: only {owner} may"));
                    }
                    if let Some(may_use) = pure.get(name)
                        && !only_tests
                        && !may_use.contains(&dependency.as_str())
                    {
                        found.push(format!("{name} is pure and must not use {dependency}"));
                    }
                }
            }
        }
    }
    found
}

#[test]
fn every_crate_depends_only_on_those_that_the_design_allows() {
    let packages = packages();
    assert!(packages.len() >= 11, "cargo metadata lists {} packages", packages.len());
    let found = violations(&packages);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn a_wrong_direction_would_be_found() {
    let package = |name: &str, dependencies: &[(&str, bool)]| Package {
        name: format!("strandline-{name}"),
        dependencies: dependencies.iter().map(|(d, t)| (d.to_string(), *t)).collect(),
    };
    let wrong = [
        package("client", &[("strandline-node", true), ("tokio", false)]),
        package("core", &[("tokio", false), ("rand", true)]),
        package("node", &[("turmoil", true), ("strandline-core", false)]),
        package("novel", &[]),
    ];
    assert_eq!(
        violations(&wrong),
        [
            "client must not depend on node",
            "core is pure and must not use tokio",
            "node must not name turmoil: only sim may",
            "novel has no row in MAY_DEPEND_ON",
        ]
    );
}

/// Every `.rs` file below `directory` with its path from the root, sorted. Nested crates and tests are left out.
fn sources(directory: &str) -> Vec<(String, String)> {
    fn walk(directory: &Path, files: &mut BTreeSet<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.insert(path);
            }
        }
    }
    let mut files = BTreeSet::new();
    walk(&root().join(directory), &mut files);
    let name = |path: &Path| path.strip_prefix(root()).expect("below the root").display().to_string();
    files
        .into_iter()
        .filter(|path| !path.ends_with("tests.rs"))
        .map(|path| (name(&path), std::fs::read_to_string(&path).expect("a source file")))
        .collect()
}

/// Lines with their numbers, without comments and without the test module at the end of a file.
fn product_lines(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = source.lines().collect();
    let is_test_module = |i: &usize| {
        lines[*i].starts_with("#[cfg(test)]")
            && lines.get(*i + 1).is_some_and(|next| next.contains("mod ") && next.ends_with('{'))
    };
    let end = (0..lines.len()).find(is_test_module).unwrap_or(lines.len());
    (0..end)
        .map(move |i| (i + 1, lines[i].split("//").next().unwrap_or_default()))
        .filter(|(_, line)| !line.trim().is_empty())
}

#[test]
fn files_sockets_clocks_threads_and_randomness_are_touched_only_where_the_seams_are() {
    let mut found = Vec::new();
    let mut seen = 0;
    for (file, source) in PRODUCT.iter().flat_map(|directory| sources(directory)) {
        seen += 1;
        for (number, line) in product_lines(&source) {
            for (word, seams) in SEAMS {
                if line.contains(word) && !seams.contains(&file.as_str()) {
                    found.push(format!("{file}:{number}: {word}: {}", line.trim()));
                }
            }
        }
    }
    assert!(seen > 30, "only {seen} source files were found");
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn pure_crates_have_no_runtime_clock_randomness_or_unordered_maps() {
    let mut found = Vec::new();
    for (file, source) in
        ["storage/record/src", "raft/metadata/src", "node/core/src"].into_iter().flat_map(sources)
    {
        for (number, line) in product_lines(&source) {
            found.extend(
                IMPURE
                    .iter()
                    .filter(|word| line.contains(*word))
                    .map(|word| format!("{file}:{number}: {word}: {}", line.trim())),
            );
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn comments_and_test_modules_are_not_product_code() {
    let source = "use a; // std::fs\n// std::fs\n#[cfg(test)]\nuse std::fs;\nfn f() {}\n#[cfg(test)]\nmod tests {\nstd::fs\n}\n";
    let lines: Vec<_> = product_lines(source).map(|(number, line)| (number, line.trim())).collect();
    assert_eq!(lines, [(1, "use a;"), (3, "#[cfg(test)]"), (4, "use std::fs;"), (5, "fn f() {}")]);
}
