//! The table of what caught what, `sim/MUTANTS.md`: written after every mutant, read back to go on where a run ended.

use super::patch::Patch;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const HEAD: &str = "\
# Mutants

Planted bugs (`sim/mutants/`), each applied alone to a scratch checkout, and what noticed it: written by `cargo xtask mutants`.
*In* is the scenario, or \"free\" for exploration, and the seed; the same seed is clean without the mutant. *Runs* is how many
were needed, the named scenarios of the patch first. *Patch* is a hash of the diff.

| Mutant | Hazard | Caught by | In | Runs | Seconds | Patch |
|---|---|---|---|---:|---:|---|
";

/// In place of an invariant.
const SURVIVED: &str = "**nobody**";

/// What became of one mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Number and name.
    pub hazard: String,
    /// The violated invariant, or how else the run ended; nothing if the mutant survived.
    pub caught_by: Option<String>,
    /// Scenario and seed of that run.
    pub run: String,
    pub runs: u64,
    pub seconds: u64,
    pub hash: String,
}

/// By the mutant's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(BTreeMap<String, Row>);

impl Table {
    pub fn parse(text: &str) -> Table {
        let rows = text.lines().filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
            let [name, hazard, caught_by, run, runs, seconds, hash] = cells[..] else { return None };
            let row = Row {
                hazard: hazard.to_owned(),
                caught_by: (caught_by != SURVIVED).then(|| caught_by.to_owned()),
                run: run.to_owned(),
                runs: runs.parse().ok()?,
                seconds: seconds.parse().ok()?,
                hash: hash.to_owned(),
            };
            Some((name.to_owned(), row))
        });
        Table(rows.collect())
    }

    pub fn insert(&mut self, name: &str, row: Row) {
        self.0.insert(name.to_owned(), row);
    }

    /// Rows of mutants that are no more go.
    pub fn retain(&mut self, patches: &[Patch]) {
        self.0.retain(|name, _| patches.iter().any(|patch| patch.name == *name));
    }

    /// This very diff was tried before, and caught. One that survived is always tried again: not the diff has to change
    /// for it, but who should notice.
    pub fn has_caught(&self, patch: &Patch) -> bool {
        self.0.get(&patch.name).is_some_and(|row| row.hash == patch.hash && row.caught_by.is_some())
    }

    pub fn render(&self) -> String {
        let mut text = HEAD.to_owned();
        for (name, row) in &self.0 {
            let Row { hazard, caught_by, run, runs, seconds, hash } = row;
            let caught_by = caught_by.as_deref().unwrap_or(SURVIVED);
            writeln!(text, "| {name} | {hazard} | {caught_by} | {run} | {runs} | {seconds} | {hash} |")
                .expect("a String takes it");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn row(caught_by: Option<&str>) -> Row {
        Row {
            hazard: "37 fsync-error".to_owned(),
            caught_by: caught_by.map(str::to_owned),
            run: "free, seed 7".to_owned(),
            runs: 12,
            seconds: 90,
            hash: "0123456789abcdef".to_owned(),
        }
    }

    fn patch(name: &str) -> Patch {
        Patch {
            name: name.to_owned(),
            path: PathBuf::new(),
            rule: String::new(),
            hazard: (37, String::new()),
            invariants: Vec::new(),
            scenarios: Vec::new(),
            hash: "0123456789abcdef".to_owned(),
        }
    }

    #[test]
    fn a_table_reads_back_as_it_was_written() {
        let mut table = Table::default();
        table.insert("37-b", row(None));
        table.insert("37-a", row(Some("I1-durability")));
        let text = table.render();
        assert_eq!(Table::parse(&text), table);
        assert!(text.find("| 37-a |") < text.find("| 37-b |"), "{text}");
    }

    #[test]
    fn only_the_same_diff_that_was_caught_counts_as_done() {
        let mut table = Table::default();
        table.insert("37-a", row(Some("I1-durability")));
        table.insert("37-b", row(None));
        assert!(table.has_caught(&patch("37-a")));
        assert!(!table.has_caught(&Patch { hash: "f".to_owned(), ..patch("37-a") }));
        assert!(!table.has_caught(&patch("37-b")) && !table.has_caught(&patch("37-c")));
        table.retain(&[patch("37-b")]);
        assert!(!table.has_caught(&patch("37-a")));
    }
}
