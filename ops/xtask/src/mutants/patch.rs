//! A planted bug: a unified diff below a few lines that say which rule it breaks and who should notice.
//!
//! ```text
//!   Rule: what no longer holds, in a sentence or two
//!     (lines that begin with a blank go on with the field)
//!   Hazard: 37 fsync-error
//!   Invariants: I8-candidate-completeness, I1-durability      those expected to catch it
//!   Scenarios: fsync-error                                    those tried first
//!
//!   diff --git …
//! ```
//! The file is named after its hazard (`37-fsync-error-of-raft.patch`) or after the sentence of the replication rules
//! that it breaks (`flag-maximal-isr.patch`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Of file names that break a flagged sentence.
pub const FLAG: &str = "flag-";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The file's name without its ending.
    pub name: String,
    pub path: PathBuf,
    pub rule: String,
    /// Number and name.
    pub hazard: (u8, String),
    pub invariants: Vec<String>,
    pub scenarios: Vec<String>,
    /// Of the diff alone: the words above it may be mended without trying the mutant again.
    pub hash: String,
}

impl Patch {
    /// The sentence that it breaks, if it is named after one.
    pub fn flag(&self) -> Option<&str> {
        self.name.strip_prefix(FLAG)
    }

    /// # Errors
    /// What is wrong with the text.
    pub fn parse(path: &Path, text: &str) -> Result<Patch, String> {
        let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or("its name is not text")?.to_owned();
        let Some(at) = text.find("\ndiff --git ") else { return Err("there is no diff in it".to_owned()) };
        let (head, diff) = text.split_at(at + 1);
        let mut fields = fields(head)?;
        let mut take = |field: &str| fields.remove(field).ok_or_else(|| format!("it does not say {field}"));
        let (rule, hazard) = (take("Rule")?, take("Hazard")?);
        let (invariants, scenarios) = (list(&take("Invariants")?), list(&take("Scenarios")?));
        if let Some(unknown) = fields.keys().next() {
            return Err(format!("{unknown} is no field"));
        }
        let hazard = hazard
            .split_once(' ')
            .and_then(|(number, name)| Some((number.parse::<u8>().ok()?, name.to_owned())))
            .ok_or_else(|| format!("{hazard:?} is not number and name of a hazard"))?;
        if invariants.is_empty() || scenarios.is_empty() {
            return Err("nobody is expected to catch it".to_owned());
        }
        let patch =
            Patch { name, path: path.to_owned(), rule, hazard, invariants, scenarios, hash: hash(diff) };
        let named = format!("{:02}-", patch.hazard.0);
        match patch.flag().is_some() || patch.name.starts_with(&named) {
            true => Ok(patch),
            false => Err(format!("its name begins with neither {FLAG:?} nor {named:?}")),
        }
    }
}

/// All of them, by name.
///
/// # Errors
/// A file that cannot be read, or is no patch.
pub fn read_all(dir: &Path) -> io::Result<Vec<Patch>> {
    let mut patches = Vec::new();
    for entry in dir.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "patch") {
            let text = std::fs::read_to_string(&path)?;
            let wrong =
                |what| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
            patches.push(Patch::parse(&path, &text).map_err(wrong)?);
        }
    }
    patches.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(patches)
}

fn fields(head: &str) -> Result<BTreeMap<String, String>, String> {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut last = None;
    for line in head.lines().filter(|line| !line.trim().is_empty()) {
        if line.starts_with(' ') {
            let goes_on = last.as_ref().and_then(|field| fields.get_mut(field));
            let value = goes_on.ok_or("it begins with a line that goes on")?;
            *value = format!("{value} {}", line.trim());
        } else {
            let (field, value) = line.split_once(": ").ok_or_else(|| format!("{line:?} is no field"))?;
            last = Some(field.to_owned());
            if fields.insert(field.to_owned(), value.trim().to_owned()).is_some() {
                return Err(format!("it says {field} twice"));
            }
        }
    }
    Ok(fields)
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

/// FNV-1a, the same on every machine and with every compiler.
fn hash(text: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Rule: A sync that failed
  is tried again.
Hazard: 37 fsync-error
Invariants: I1-durability, I8-candidate-completeness
Scenarios: fsync-error

diff --git a/x b/x
";

    fn parse(name: &str, text: &str) -> Result<Patch, String> {
        Patch::parse(Path::new(name), text)
    }

    #[test]
    fn the_words_above_the_diff_are_read_and_do_not_count_for_the_hash() {
        let patch = parse("m/37-fsync-error.patch", TEXT).unwrap();
        assert_eq!(patch.rule, "A sync that failed is tried again.");
        assert_eq!(patch.hazard, (37, "fsync-error".to_owned()));
        assert_eq!(patch.invariants, ["I1-durability", "I8-candidate-completeness"]);
        assert_eq!((patch.name.as_str(), patch.flag()), ("37-fsync-error", None));
        let other_words = parse("m/37-fsync-error.patch", &TEXT.replace("again", "once more")).unwrap();
        let other_diff = parse("m/37-fsync-error.patch", &TEXT.replace("b/x", "b/y")).unwrap();
        assert_eq!(patch.hash, other_words.hash);
        assert_ne!(patch.hash, other_diff.hash);
        assert_eq!(parse("flag-maximal-isr.patch", TEXT).unwrap().flag(), Some("maximal-isr"));
    }

    #[test]
    fn what_is_no_mutant_is_refused() {
        for (name, text, why) in [
            ("37-x.patch", TEXT.replace("diff --git", "--- a"), "no diff"),
            ("37-x.patch", TEXT.replace("Rule", "Rules"), "does not say Rule"),
            ("37-x.patch", TEXT.replace("Hazard: 37", "Hazard: many"), "number and name"),
            ("37-x.patch", TEXT.replace("\ndiff", "Rule: again\n\ndiff"), "twice"),
            ("36-x.patch", TEXT.to_owned(), "begins with neither"),
        ] {
            let error = parse(name, &text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
