//! The flags of a node, made from its table of configuration keys.

use crate::exit::Failure;
use clap::{Arg, ArgMatches, Command};
use std::path::PathBuf;
use std::sync::LazyLock;
use strandline_node::config::{self, ConfigFile, KEYS, Loaded, Sources};

/// Every `--key-name VALUE` that was given, by key.
#[derive(Clone, Debug, Default)]
pub struct NodeFlags {
    pub values: Vec<(String, String)>,
}

/// Clap keeps names of flags for the life of the process.
static FLAGS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| KEYS.iter().map(|key| key.flag().leak() as &'static str).collect());

/// Adds a flag for each key that is `wanted`.
fn augment(command: Command, wanted: fn(&config::Key) -> bool) -> Command {
    KEYS.iter().zip(FLAGS.iter()).filter(|(key, _)| wanted(key)).fold(command, |command, (key, flag)| {
        let default = match key.default() {
            Some(text) => format!(" [default: {text}]"),
            None if key.required => " [required]".to_owned(),
            None => String::new(),
        };
        let long =
            format!("{}{default}\n\nAllowed: {}. Example: {}", key.documentation, key.allowed(), key.example);
        let short =
            key.documentation.split_inclusive(". ").next().unwrap_or_default().trim().trim_end_matches('.');
        command.arg(
            Arg::new(key.name)
                .long(*flag)
                .value_name(value_name(key.kind()))
                .allow_hyphen_values(true)
                .help(format!("{short}{default}"))
                .long_help(long)
                .help_heading(key.section),
        )
    })
}

/// What was given for the keys that are `wanted`.
fn given(matches: &ArgMatches, wanted: fn(&config::Key) -> bool) -> Vec<(String, String)> {
    let value = |key: &config::Key| {
        let value = matches.get_one::<String>(key.name)?;
        Some((key.name.to_owned(), value.clone()))
    };
    KEYS.iter().filter(|key| wanted(key)).filter_map(value).collect()
}

impl clap::Args for NodeFlags {
    fn augment_args(command: Command) -> Command {
        augment(command, |_| true)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn value_name(kind: &str) -> &'static str {
    match kind {
        "integer" => "N",
        "bytes" => "BYTES",
        "milliseconds" => "MS",
        "seconds" => "SECONDS",
        "boolean" => "BOOL",
        "address" => "HOST:PORT",
        "list of addresses" => "HOST:PORT,…",
        "list of nodes" => "ID=HOST:PORT,…",
        "path" => "DIR",
        "uuid" => "UUID",
        "choice" => "CHOICE",
        _ => "TEXT",
    }
}

impl clap::FromArgMatches for NodeFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(NodeFlags { values: given(matches, |_| true) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The same for the keys that a gateway alone has, too: where it listens, and what begins with `http.` or
/// `ingest.`.
#[derive(Clone, Debug, Default)]
pub struct GatewayFlags {
    pub values: Vec<(String, String)>,
}

fn of_gateway(key: &config::Key) -> bool {
    ["http.", "ingest."].iter().any(|section| key.name.starts_with(section))
        || ["listen.http", "max.connections"].contains(&key.name)
}

impl clap::Args for GatewayFlags {
    fn augment_args(command: Command) -> Command {
        augment(command, of_gateway)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for GatewayFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(GatewayFlags { values: given(matches, of_gateway) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Where a node's configuration comes from.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeConfigArgs {
    /// TOML file with any of the keys below; environment and flags win over it
    #[arg(long, value_name = "FILE", env = "STRANDLINE_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub flags: NodeFlags,
}

impl NodeConfigArgs {
    /// File, environment and flags together, validated.
    pub fn load(&self) -> Result<Loaded, Failure> {
        let file = match &self.config {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Failure::usage(format_args!(
                        "cannot read the configuration file {}: {error}",
                        path.display()
                    ))
                })?;
                Some((path.display().to_string(), text))
            }
            None => None,
        };
        // Names and values that are not Unicode cannot be ours.
        let env = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        let sources = Sources {
            file: file.as_ref().map(|(name, text)| ConfigFile { name, text }),
            env,
            flags: self.flags.values.clone(),
        };
        config::load(&sources).map_err(|error| {
            Failure::usage(error).hint("`strandline config list` documents every key; nothing was started")
        })
    }
}
