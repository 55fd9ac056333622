//! `strandline config`: the keys of a node, and what a node would run with.

use crate::exit::Failure;
use crate::metrics;
use crate::node_flags::NodeConfigArgs;
use crate::output::Output;
use crate::table::table;
use serde_json::json;
use strandline_node::config::{KEYS, Key, markdown, sample_toml, suggest};

/// Configuration of a node: every key, a sample file, a check
#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// List every key with its type, default and meaning
    #[command(after_help = "\
Examples:
    strandline config list
    strandline config list retention
    strandline config list broker.session.timeout.ms
    strandline config list --json | jq '.[].name'")]
    List {
        /// Only keys whose name contains this; the whole name of a key shows all about it
        name: Option<String>,
        /// As the page in ops/docs/configuration.md
        #[arg(long, conflicts_with = "name")]
        markdown: bool,
    },
    /// List what a node and a gateway show at /metrics
    #[command(after_help = "\
Examples:
    strandline config metrics
    strandline config metrics raft
    curl -s localhost:8080/metrics")]
    Metrics {
        /// Only metrics whose name contains this
        name: Option<String>,
        /// As the page in ops/docs/metrics.md
        #[arg(long, conflicts_with = "name")]
        markdown: bool,
    },
    /// Print a file with every key, defaults commented out
    #[command(after_help = "Example:\n    strandline config sample > node.toml")]
    Sample,
    /// Say what a node would run with, and where each value comes from; starts nothing
    #[command(after_help = "Example:\n    strandline config check --config node.toml --log-level debug")]
    Check(Box<NodeConfigArgs>),
}

pub fn run(command: ConfigCommand, out: Output) -> Result<(), Failure> {
    match command {
        ConfigCommand::List { markdown: true, .. } => out.line(&markdown()),
        ConfigCommand::List { name, .. } => list(name.as_deref().unwrap_or(""), out),
        ConfigCommand::Metrics { markdown: true, .. } => out.line(&metrics::page()),
        ConfigCommand::Metrics { name, .. } => metrics::list(name.as_deref().unwrap_or(""), out),
        ConfigCommand::Sample => out.show(&json!({ "toml": sample_toml() }), sample_toml),
        ConfigCommand::Check(args) => check(&args, out),
    }
}

fn list(name: &str, out: Output) -> Result<(), Failure> {
    let keys: Vec<&Key> = KEYS.iter().filter(|key| key.name.contains(name)).collect();
    if keys.is_empty() {
        let near = suggest(name, KEYS.iter().map(|key| key.name));
        let failure = Failure::new(crate::exit::Exit::NotFound, format_args!("no key contains `{name}`"));
        return Err(match near {
            Some(near) => failure.hint(format_args!("did you mean `{near}`?")),
            None => failure,
        });
    }
    let documents: Vec<_> = keys
        .iter()
        .map(|key| {
            json!({
                "name": key.name, "type": key.kind(), "allowed": key.allowed(), "default": key.default(),
                "required": key.required, "example": key.example, "environment": key.env(),
                "flag": format!("--{}", key.flag()), "documentation": key.documentation,
            })
        })
        .collect();
    out.show(&documents, || match keys.iter().find(|key| key.name == name) {
        Some(key) => details(key),
        None => {
            let rows = keys.iter().map(|key| {
                let default =
                    key.default().unwrap_or_else(|| if key.required { "(required)" } else { "-" }.to_owned());
                [key.name.to_owned(), key.kind().to_owned(), default, short(key)]
            });
            table(["key", "type", "default", "meaning"], rows)
        }
    })
}

fn short(key: &Key) -> String {
    let first = key.documentation.split_inclusive(". ").next().unwrap_or_default().trim();
    match first.char_indices().nth(80) {
        Some((cut, _)) => format!("{}…", &first[..cut]),
        None => first.to_owned(),
    }
}

fn details(key: &Key) -> String {
    crate::table::facts([
        ("key", key.name.to_owned()),
        ("meaning", key.documentation.to_owned()),
        ("type", key.kind().to_owned()),
        ("allowed", key.allowed()),
        (
            "default",
            key.default().unwrap_or_else(|| if key.required { "required" } else { "none" }.to_owned()),
        ),
        ("example", key.example.to_owned()),
        ("environment", key.env()),
        ("flag", format!("--{}", key.flag())),
    ])
}

fn check(args: &NodeConfigArgs, out: Output) -> Result<(), Failure> {
    let loaded = args.load()?;
    let documents: Vec<_> = KEYS
        .iter()
        .map(|key| {
            json!({
                "name": key.name, "value": key.get(&loaded.config), "from": loaded.origin(key.name).to_string(),
            })
        })
        .collect();
    out.show(&documents, || {
        let rows = KEYS.iter().map(|key| {
            let value = key.get(&loaded.config);
            let value = if value.is_empty() { "-".to_owned() } else { value };
            [key.name.to_owned(), value, loaded.origin(key.name).to_string()]
        });
        table(["key", "value", "from"], rows)
    })
}
