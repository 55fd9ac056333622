//! The configuration page and a commented sample file, written from the table of keys.

use super::keys::{KEYS, Key};
use std::fmt::Write;

/// `ops/docs/configuration.md`. A test compares the file with this; `cargo xtask fix` rewrites it.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         <!-- Written by `cargo xtask fix` from the table in node/src/config/keys.rs. Change it there. -->\n\n\
         A node is configured by a TOML file (`strandline serve --config node.toml`), the environment and flags,\n\
         with one set of names. Flags win over the environment, the environment over the file, the file over the\n\
         default. An unknown key is an error in each of them. `strandline config list` prints this table,\n\
         `strandline config check --config node.toml` says what a node would run with, and\n\
         `strandline config sample` prints a file with every key.\n\n\
         | written in | `broker.session.timeout.ms` looks like |\n|---|---|\n\
         | the file | `broker.session.timeout.ms = 3000` (or in a table: `[broker]`, `session.timeout.ms = 3000`) |\n\
         | the environment | `STRANDLINE_BROKER_SESSION_TIMEOUT_MS=3000` |\n\
         | a flag | `--broker-session-timeout-ms 3000` |\n\n\
         Bytes may carry `KiB`, `MiB`, `GiB` or `TiB`, times `ms`, `s`, `min`, `h` or `d`; a bare number is in the unit\n\
         of the key's name. In a file such a value is a string: `journal.file.bytes = \"64MiB\"`. Where Kafka has a\n\
         key for the same thing, the name is Kafka's.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            write!(page, "\n## {section}\n").expect("writing to a string");
        }
        write!(page, "\n### `{}`\n\n{}\n\n{}\n", key.name, key.documentation, facts(key))
            .expect("writing to a string");
    }
    page
}

/// Type, default and example of a key in one line.
fn facts(key: &Key) -> String {
    let default = match key.default() {
        Some(text) => format!("default `{text}`"),
        None if key.required => "required".to_owned(),
        None => "no default".to_owned(),
    };
    format!("{} ({}) · {default} · for example `{}`", key.kind(), key.allowed(), key.example)
}

/// A TOML file with every key: required ones to fill in, the others commented out with their defaults.
pub fn sample_toml() -> String {
    let mut file = String::from("# Configuration of a Strandline node. Commented lines show the defaults.\n");
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            write!(file, "\n# ---- {section} ----\n").expect("writing to a string");
        }
        let comment = if key.required { "" } else { "# " };
        let value = key.default().unwrap_or_else(|| key.example.to_owned());
        let bare = matches!(key.kind(), "integer" | "bytes" | "milliseconds" | "seconds" | "boolean")
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && (value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok());
        let value = if bare { value } else { format!("\"{value}\"") };
        write!(file, "\n# {}\n{comment}{} = {value}\n", key.documentation, key.name)
            .expect("writing to a string");
    }
    file
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigFile, KEYS, NodeConfig, Sources, load};
    use super::*;

    #[test]
    fn no_key_is_a_dotted_prefix_of_another_and_no_name_comes_twice() {
        for a in KEYS {
            for b in KEYS {
                assert!(!b.name.starts_with(&format!("{}.", a.name)), "{} hides {}", a.name, b.name);
            }
            assert_eq!(
                KEYS.iter().filter(|b| b.env() == a.env() || b.flag() == a.flag()).count(),
                1,
                "{}",
                a.name
            );
        }
    }

    #[test]
    fn every_default_and_every_example_is_read_back_as_the_same_value() {
        for key in KEYS {
            let default = NodeConfig::default();
            let mut config = NodeConfig::default();
            if let Some(text) = key.default() {
                key.set(&mut config, &text).unwrap_or_else(|e| panic!("default of {}: {e}", key.name));
                assert_eq!(config, default, "{}", key.name);
            }
            key.set(&mut config, key.example).unwrap_or_else(|e| panic!("example of {}: {e}", key.name));
            let mut again = NodeConfig::default();
            key.set(&mut again, &key.get(&config)).unwrap();
            assert_eq!(again, config, "{}", key.name);
        }
    }

    #[test]
    fn every_key_is_documented_in_sentences() {
        for key in KEYS {
            assert!(key.documentation.ends_with(['.', ')']), "{}: {}", key.name, key.documentation);
            assert!(key.documentation.len() > 20, "{}", key.name);
            assert!(!key.documentation.contains("  "), "{}: {}", key.name, key.documentation);
        }
    }

    #[test]
    fn the_sample_file_is_valid_as_it_is_and_with_every_key_uncommented() {
        let sample = sample_toml();
        let load_text = |text: &str| {
            load(&Sources { file: Some(ConfigFile { name: "sample.toml", text }), ..Sources::default() })
        };
        assert_eq!(load_text(&sample).unwrap().config.node_id.get(), 1);
        let is_setting = |line: &str| {
            KEYS.iter().any(|k| line.starts_with(&format!("# {} = ", k.name)))
                // A node does not form a cluster and join one.
                && !line.starts_with("# join = ")
                // The example's addresses are another machine's.
                && !line.starts_with("# advertise.")
        };
        let all: String = sample
            .lines()
            .map(|line| if is_setting(line) { line.trim_start_matches("# ") } else { line })
            .flat_map(|line| [line, "\n"])
            .collect();
        let loaded = load_text(&all).unwrap();
        assert!(loaded.config.form_cluster.is_some(), "uncommenting had no effect");
    }

    #[test]
    fn the_configuration_page_is_up_to_date() {
        let page = include_str!("../../../ops/docs/configuration.md");
        assert!(page == markdown(), "ops/docs/configuration.md is out of date: run `cargo xtask fix`");
    }
}
