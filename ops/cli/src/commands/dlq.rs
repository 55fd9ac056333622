//! `strandline dlq`: events of the ingest pipeline that its store would not take.

use super::connect;
use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::{Output, grouped, time_of_ms};
use crate::table::{facts, table};
use serde_json::{Value, json};
use strandline_gateway::ingest::dead_letters::{FoundLetter, Letters, MAX_LETTERS, read_letters, redrive};

/// Dead letters of the ingest pipeline: list, show, redrive
#[derive(Debug, clap::Subcommand)]
pub enum DlqCommand {
    /// List events that failed and have not been redriven
    #[command(after_help = "\
Examples:
    strandline dlq list
    strandline dlq list --all --json | jq .letters[].error")]
    List {
        /// Also those that have been redriven
        #[arg(long)]
        all: bool,
    },
    /// Show one dead letter with its event
    #[command(after_help = "Example:\n    strandline dlq show 16c655b6e2e3")]
    Show {
        /// Its key, or the beginning of it
        key: String,
    },
    /// Send failed events through the pipeline again
    #[command(after_help = "\
Examples:
    strandline dlq redrive 16c655b6e2e3
    strandline dlq redrive --all

An event counts once, however often it is redriven. One that fails again becomes a new dead letter.")]
    Redrive {
        /// Keys of dead letters, or the beginnings of them
        #[arg(required_unless_present = "all")]
        keys: Vec<String>,
        /// All that have not been redriven
        #[arg(long, conflicts_with = "keys")]
        all: bool,
    },
}

pub async fn run(command: DlqCommand, global: &Global, out: Output) -> Result<(), Failure> {
    let client = connect(global).await?;
    let letters = read_letters(&client, global.timeout).await?;
    if letters.more {
        out.remark(&format!(
            "not all were read: at most {MAX_LETTERS}, and for at most {:?}",
            global.timeout
        ));
    }
    match command {
        DlqCommand::List { all } => list(&letters, all, out),
        DlqCommand::Show { key } => show(find(&letters, &key)?, out),
        DlqCommand::Redrive { keys, all } => {
            let chosen: Vec<&FoundLetter> = match all {
                true => letters.found.values().filter(|found| !found.redriven).collect(),
                false => keys.iter().map(|key| find(&letters, key)).collect::<Result<_, _>>()?,
            };
            let chosen: Vec<_> = chosen.into_iter().map(|found| &found.letter).collect();
            redrive(&client, &chosen).await?;
            let keys: Vec<String> = chosen.iter().map(|letter| letter.key()).collect();
            out.show(&json!({ "redriven": keys }), || match keys.len() {
                1 => "redrove 1 event".to_owned(),
                count => format!("redrove {} events", grouped(count as u64)),
            })
        }
    }
}

fn document(found: &FoundLetter) -> Value {
    let letter = &found.letter;
    json!({
        "key": letter.key(),
        "id": letter.id,
        "redrives": letter.redrives,
        "redriven": found.redriven,
        "failed_ms": found.failed_ms,
        "error": letter.error,
        "attempts": letter.attempts,
        "origin": letter.origin,
        "records": found.records,
    })
}

fn list(letters: &Letters, all: bool, out: Output) -> Result<(), Failure> {
    let mut chosen: Vec<&FoundLetter> =
        letters.found.values().filter(|found| all || !found.redriven).collect();
    chosen.sort_by_key(|found| found.failed_ms);
    let documents: Vec<Value> = chosen.iter().map(|found| document(found)).collect();
    out.show(&json!({ "letters": documents, "more": letters.more }), || {
        let rows = chosen.iter().map(|found| {
            let letter = &found.letter;
            let key = letter.key();
            // Twelve digits tell events apart; what follows is the redrive.
            let short = match key.split_once('#') {
                Some((id, redrive)) => format!("{}…#{redrive}", &id[..12]),
                None => key[..12].to_owned(),
            };
            [
                short,
                time_of_ms(found.failed_ms),
                letter.attempts.to_string(),
                letter.origin.clone(),
                if found.redriven { "redriven".to_owned() } else { letter.error.clone() },
            ]
        });
        table(["key", "failed", "attempts", "origin", "error"], rows)
    })
}

fn show(found: &FoundLetter, out: Output) -> Result<(), Failure> {
    let letter = &found.letter;
    let text = String::from_utf8_lossy(&letter.value);
    let event: Value = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()));
    let mut whole = document(found);
    whole["event"] = event.clone();
    out.show(&whole, || {
        facts([
            ("key", letter.key()),
            ("failed", time_of_ms(found.failed_ms)),
            ("attempts", letter.attempts.to_string()),
            ("origin", letter.origin.clone()),
            ("error", letter.error.clone()),
            ("redriven", if found.redriven { "yes" } else { "no" }.to_owned()),
            ("event", format!("{event:#}")),
        ])
    })
}

fn find<'a>(letters: &'a Letters, key: &str) -> Result<&'a FoundLetter, Failure> {
    if let Some(found) = letters.found.get(key) {
        return Ok(found);
    }
    let mut fitting = letters.found.iter().filter(|(whole, _)| whole.starts_with(key));
    match (fitting.next(), fitting.next()) {
        (Some((_, found)), None) => Ok(found),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format_args!("more than one dead letter begins with {key}"))
                .hint("give more of it"))
        }
        (None, _) => Err(Failure::new(Exit::NotFound, format_args!("there is no dead letter {key}"))
            .hint("`strandline dlq list --all` shows them")),
    }
}
