//! Which run: everything that a replay needs, as command line and as JSON.

use clap::Args;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use strandline_sim::run::Limits;

const SECONDS: u64 = 60;

/// One run. Two runs of equal specifications with one build are the same run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    pub seed: u64,
    #[serde(flatten)]
    pub shape: Shape,
}

/// What the seed does not decide.
#[derive(Clone, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct Shape {
    /// Run this scenario (see `list`) instead of exploring freely.
    #[arg(long, short = 's', value_name = "NAME", value_parser = known_scenario)]
    pub scenario: Option<String>,

    /// Simulated seconds of the phase with faults in an exploration; healing comes on top. Scenarios have their own.
    #[arg(long, value_name = "T", default_value_t = SECONDS, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,

    /// Use at most so many of the nodes that the seed draws.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_nodes: Option<usize>,

    /// Use at most so many of the clients that the seed draws.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_clients: Option<usize>,

    /// Let only the first so many of the faults that the seed draws happen.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_faults: Option<usize>,
}

impl RunSpec {
    /// The arguments after `run` that give this run.
    pub fn args(&self) -> Vec<String> {
        let shape = &self.shape;
        let mut args = vec!["--seed".to_owned(), self.seed.to_string()];
        let mut add = |option: &str, value: Option<String>| {
            if let Some(value) = value {
                args.extend([option.to_owned(), value]);
            }
        };
        add("--scenario", shape.scenario.clone());
        let matters = shape.scenario.is_none() || shape.seconds != SECONDS;
        add("--seconds", matters.then(|| shape.seconds.to_string()));
        add("--max-nodes", shape.max_nodes.map(|n| n.to_string()));
        add("--max-clients", shape.max_clients.map(|n| n.to_string()));
        add("--max-faults", shape.max_faults.map(|n| n.to_string()));
        args
    }

    /// The one command that replays this run, in a checkout of the same commit.
    pub fn command(&self, subcommand: &str) -> String {
        let profile = if cfg!(debug_assertions) { "" } else { "--release " };
        format!("cargo run -q {profile}-p strandline-sim -- {subcommand} {}", self.args().join(" "))
    }

    pub fn limits(&self) -> Limits {
        let Shape { max_nodes, max_clients, max_faults, .. } = self.shape;
        let all = Limits::default();
        Limits {
            nodes: max_nodes.unwrap_or(all.nodes),
            clients: max_clients.unwrap_or(all.clients),
            faults: max_faults.unwrap_or(all.faults),
        }
    }

    pub fn faulty_for(&self) -> Duration {
        Duration::from_secs(self.shape.seconds)
    }
}

fn known_scenario(name: &str) -> Result<String, String> {
    match strandline_sim::scenarios::all().iter().any(|scenario| scenario.name == name) {
        true => Ok(name.to_owned()),
        false => Err("there is no such scenario; `strandline-sim list` names them all".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "not a number".to_owned())?;
    if number == 0 { Err("a cluster has at least one node".to_owned()) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::cli::{Cli, Command};
    use clap::Parser;

    #[test]
    fn the_arguments_of_a_run_lead_back_to_it() {
        let shape =
            Shape { scenario: None, seconds: 7, max_nodes: Some(3), max_clients: None, max_faults: Some(0) };
        let spec = RunSpec { seed: 12, shape };
        let mut words = vec!["strandline-sim".to_owned(), "run".to_owned()];
        words.extend(spec.args());
        let Command::Run(run) = Cli::try_parse_from(words).unwrap().command else { panic!("it is a run") };
        assert_eq!(run.spec(), spec);
        assert_eq!(spec.limits(), Limits { nodes: 3, clients: usize::MAX, faults: 0 });
    }

    #[test]
    fn the_json_of_a_run_leads_back_to_it() {
        let shape =
            Shape { scenario: None, seconds: 60, max_nodes: None, max_clients: Some(2), max_faults: None };
        let spec = RunSpec { seed: 1, shape };
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<RunSpec>(&json).unwrap(), spec);
    }
}
