//! Types of configuration values: how each is read from text, written back, and described.
//!
//! Invariant, tested for every key: `parse(render(v)) == v`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use strandline_core::consumer_group::assignor::Assignor;
use strandline_record::BrokerId;
use uuid::Uuid;

/// `host:port`: a name or an address (IPv6 in brackets).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl HostPort {
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        HostPort { host: host.into(), port }
    }

    /// All interfaces: an address to listen on, but not one to connect to.
    pub fn is_unspecified(&self) -> bool {
        matches!(self.host.as_str(), "0.0.0.0" | "[::]")
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || (host.contains(':') && !bracketed) || host.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let port: u16 = port.parse().map_err(|_| wrong())?;
        if port == 0 {
            return Err(format!("`{text}` has port 0; choose one from 1 to 65535, others must know it"));
        }
        Ok(HostPort { host: host.to_owned(), port })
    }
}

/// The nodes that form a cluster, with their peer addresses: `1=HOST:PORT,2=HOST:PORT,…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormCluster(pub BTreeMap<BrokerId, HostPort>);

impl fmt::Display for FormCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (id, address)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{id}={address}")?;
        }
        Ok(())
    }
}

impl FromStr for FormCluster {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut members = BTreeMap::new();
        for part in list(text) {
            let (id, address) =
                part.split_once('=').ok_or_else(|| format!("`{part}` is not ID=HOST:PORT"))?;
            let number: u64 =
                id.trim().parse().map_err(|_| format!("`{id}` in `{part}` is not a node id"))?;
            let address: HostPort = address.trim().parse()?;
            if let Some((other, _)) = members.iter().find(|(_, known)| **known == address) {
                return Err(format!("nodes {other} and {number} are both listed at {address}"));
            }
            if members.insert(BrokerId(number), address).is_some() {
                return Err(format!("node {number} is listed twice"));
            }
        }
        if members.is_empty() {
            return Err("the list is empty".to_owned());
        }
        Ok(FormCluster(members))
    }
}

/// What an acknowledgement waits for on each replica: the topic key `flush`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FlushMode {
    /// On disk (fdatasync) before it is acknowledged.
    #[default]
    Ack,
    /// In the page cache; synced every `log.flush.interval.ms`.
    Interval,
    /// In the page cache; the operating system decides when to write it.
    Os,
}

/// Whose time a record carries: the topic key `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The leader's, when it appended the record.
    LogAppendTime,
}

/// Layout of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What the numbers of a key count, told from the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    None,
    Milliseconds,
    Seconds,
    Bytes,
}

impl Unit {
    pub(super) fn of(key: &str) -> Unit {
        if key.ends_with(".ms") {
            Unit::Milliseconds
        } else if key.ends_with(".seconds") {
            Unit::Seconds
        } else if key.split('.').any(|word| word == "bytes") || key.ends_with(".buffer.size") {
            Unit::Bytes
        } else {
            Unit::None
        }
    }
}

/// A value of a key: text ↔ typed.
pub(super) trait ConfigValue: Sized {
    /// Word for the type column: `integer`, `bytes`, `milliseconds`, `text`, …
    fn kind(unit: Unit) -> &'static str;
    /// What may be written, in words, for help and for errors.
    fn allowed(unit: Unit) -> &'static str;
    fn parse(text: &str, unit: Unit) -> Result<Self, String>;
    fn render(&self, unit: Unit) -> String;
    /// The value as a number in the key's unit, for range checks.
    fn number(&self, _unit: Unit) -> Option<u64> {
        None
    }
}

/// Parts of a comma-separated list, without empty ones.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// A count with an optional suffix, in the suffixes' base unit. `_` may group digits.
fn scaled(text: &str, suffixes: &[(&str, u64)], bare: u64) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'_').count();
    let (number, suffix) = text.split_at(digits);
    let number = number.replace('_', "");
    let suffix = suffix.trim();
    let factor = if suffix.is_empty() {
        bare
    } else {
        let known = suffixes.iter().find(|(name, _)| name.eq_ignore_ascii_case(suffix));
        known.ok_or_else(|| format!("`{text}` is not a number"))?.1
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is not a number"))?;
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is too large"))
}

const BYTE_SUFFIXES: &[(&str, u64)] =
    &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
const TIME_SUFFIXES: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl ConfigValue for u64 {
    fn kind(unit: Unit) -> &'static str {
        if unit == Unit::Bytes { "bytes" } else { "integer" }
    }
    fn allowed(unit: Unit) -> &'static str {
        match unit {
            Unit::Bytes => "a number of bytes, with KiB, MiB, GiB or TiB behind it if you like",
            _ => "a whole number",
        }
    }
    fn parse(text: &str, unit: Unit) -> Result<Self, String> {
        scaled(text, if unit == Unit::Bytes { BYTE_SUFFIXES } else { &[] }, 1)
    }
    fn render(&self, _unit: Unit) -> String {
        self.to_string()
    }
    fn number(&self, _unit: Unit) -> Option<u64> {
        Some(*self)
    }
}

/// Smaller integers, through `u64`.
macro_rules! integer {
    ($($ty:ty),+) => {$(
        impl ConfigValue for $ty {
            fn kind(unit: Unit) -> &'static str {
                u64::kind(unit)
            }
            fn allowed(unit: Unit) -> &'static str {
                u64::allowed(unit)
            }
            fn parse(text: &str, unit: Unit) -> Result<Self, String> {
                let wide = u64::parse(text, unit)?;
                <$ty>::try_from(wide).map_err(|_| format!("`{text}` is too large (at most {})", <$ty>::MAX))
            }
            fn render(&self, _unit: Unit) -> String {
                self.to_string()
            }
            fn number(&self, _unit: Unit) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )+};
}
integer!(u32, i32, usize);

impl ConfigValue for Duration {
    fn kind(unit: Unit) -> &'static str {
        if unit == Unit::Seconds { "seconds" } else { "milliseconds" }
    }
    fn allowed(unit: Unit) -> &'static str {
        match unit {
            Unit::Seconds => "a number of seconds, or a time such as 90s, 5min, 2h",
            _ => "a number of milliseconds, or a time such as 500ms, 3s, 5min, 2h, 7d",
        }
    }
    fn parse(text: &str, unit: Unit) -> Result<Self, String> {
        let bare = if unit == Unit::Seconds { 1000 } else { 1 };
        let ms = scaled(text, TIME_SUFFIXES, bare)?;
        if unit == Unit::Seconds && !ms.is_multiple_of(1000) {
            return Err(format!("`{text}` is not a whole number of seconds"));
        }
        Ok(Duration::from_millis(ms))
    }
    fn render(&self, unit: Unit) -> String {
        self.number(unit).unwrap_or(u64::MAX).to_string()
    }
    fn number(&self, unit: Unit) -> Option<u64> {
        u64::try_from(self.as_millis()).ok().map(|ms| if unit == Unit::Seconds { ms / 1000 } else { ms })
    }
}

/// Limits: `-1` is Kafka's "no limit", `None` here.
macro_rules! limit {
    ($($ty:ty => $seconds:literal, $other:literal);+) => {$(
        impl ConfigValue for Option<$ty> {
            fn kind(unit: Unit) -> &'static str {
                <$ty>::kind(unit)
            }
            fn allowed(unit: Unit) -> &'static str {
                if unit == Unit::Seconds { $seconds } else { $other }
            }
            fn parse(text: &str, unit: Unit) -> Result<Self, String> {
                if text.trim() == "-1" { Ok(None) } else { <$ty>::parse(text, unit).map(Some) }
            }
            fn render(&self, unit: Unit) -> String {
                self.as_ref().map_or_else(|| "-1".to_owned(), |v| v.render(unit))
            }
            fn number(&self, unit: Unit) -> Option<u64> {
                self.as_ref().and_then(|v| v.number(unit))
            }
        }
    )+};
}
limit!(
    u64 => "a number of bytes, or -1 for no limit", "a number of bytes (KiB, MiB, GiB, TiB may follow), or -1 for no limit";
    Duration => "a number of seconds, or -1 for no limit", "a number of milliseconds (or 3s, 5min, 2h, 7d), or -1 for no limit"
);

impl ConfigValue for bool {
    fn kind(_: Unit) -> &'static str {
        "boolean"
    }
    fn allowed(_: Unit) -> &'static str {
        "true or false"
    }
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        text.trim().parse().map_err(|_| format!("`{text}` is neither true nor false"))
    }
    fn render(&self, _: Unit) -> String {
        self.to_string()
    }
}

impl ConfigValue for String {
    fn kind(_: Unit) -> &'static str {
        "text"
    }
    fn allowed(_: Unit) -> &'static str {
        "text, not empty"
    }
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("it is empty".to_owned());
        }
        Ok(text.trim().to_owned())
    }
    fn render(&self, _: Unit) -> String {
        self.clone()
    }
}

impl ConfigValue for PathBuf {
    fn kind(_: Unit) -> &'static str {
        "path"
    }
    fn allowed(_: Unit) -> &'static str {
        "a directory; a relative one is taken from the working directory"
    }
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        Ok(PathBuf::from(text))
    }
    fn render(&self, _: Unit) -> String {
        self.display().to_string()
    }
}

impl ConfigValue for BrokerId {
    fn kind(_: Unit) -> &'static str {
        "integer"
    }
    fn allowed(_: Unit) -> &'static str {
        "a whole number from 1"
    }
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        match text.trim().parse::<u64>() {
            Ok(id) if id >= 1 => Ok(BrokerId(id)),
            _ => Err(format!("`{text}` is not a node id")),
        }
    }
    fn render(&self, _: Unit) -> String {
        self.to_string()
    }
    fn number(&self, _: Unit) -> Option<u64> {
        Some(self.get())
    }
}

impl ConfigValue for HostPort {
    fn kind(_: Unit) -> &'static str {
        "address"
    }
    fn allowed(_: Unit) -> &'static str {
        "HOST:PORT, such as 127.0.0.1:7070, 0.0.0.0:7070 or [::]:7070"
    }
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        text.trim().parse()
    }
    fn render(&self, _: Unit) -> String {
        self.to_string()
    }
}

impl ConfigValue for Vec<HostPort> {
    fn kind(_: Unit) -> &'static str {
        "list of addresses"
    }
    fn allowed(_: Unit) -> &'static str {
        "HOST:PORT, or several with commas between them"
    }
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        list(text).map(str::parse).collect()
    }
    fn render(&self, _: Unit) -> String {
        self.iter().map(HostPort::to_string).collect::<Vec<_>>().join(",")
    }
}

impl ConfigValue for Vec<Assignor> {
    fn kind(_: Unit) -> &'static str {
        "list of assignors"
    }
    fn allowed(_: Unit) -> &'static str {
        "`uniform`, `range`, or both with a comma between them"
    }
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        let mut assignors = Vec::new();
        for name in list(text) {
            let assignor = Assignor::by_name(name).ok_or_else(|| format!("`{name}` is not an assignor"))?;
            if assignors.contains(&assignor) {
                return Err(format!("`{name}` is named twice"));
            }
            assignors.push(assignor);
        }
        if assignors.is_empty() { Err("at least one is needed".to_owned()) } else { Ok(assignors) }
    }
    fn render(&self, _: Unit) -> String {
        self.iter().map(|assignor| assignor.name()).collect::<Vec<_>>().join(",")
    }
}

/// Optional values: empty text is `None`.
macro_rules! optional {
    ($($ty:ty, $kind:literal, $allowed:literal, $what:literal);+ $(;)?) => {$(
        impl ConfigValue for Option<$ty> {
            fn kind(_: Unit) -> &'static str {
                $kind
            }
            fn allowed(_: Unit) -> &'static str {
                $allowed
            }
            fn parse(text: &str, _: Unit) -> Result<Self, String> {
                let text = text.trim();
                if text.is_empty() {
                    return Ok(None);
                }
                text.parse::<$ty>().map(Some).map_err(|error| {
                    let why = error.to_string();
                    if why.contains('`') { why } else { format!("`{text}` is not {}: {why}", $what) }
                })
            }
            fn render(&self, _: Unit) -> String {
                self.as_ref().map(ToString::to_string).unwrap_or_default()
            }
        }
    )+};
}
optional! {
    HostPort, "address", "HOST:PORT", "an address";
    Uuid, "uuid", "the id that `strandline cluster status` shows", "a cluster id";
    String, "text", "any text", "text";
    FormCluster, "list of nodes", "1=HOST:PORT,2=HOST:PORT,… with the peer address of each node",
        "a list of nodes";
}

/// Values chosen from a few words.
macro_rules! words {
    ($($ty:ident, $allowed:literal { $($word:literal => $value:ident),+ });+ $(;)?) => {$(
        impl ConfigValue for $ty {
            fn kind(_: Unit) -> &'static str {
                "choice"
            }
            fn allowed(_: Unit) -> &'static str {
                $allowed
            }
            fn parse(text: &str, _: Unit) -> Result<Self, String> {
                match text.trim() {
                    $($word => Ok($ty::$value),)+
                    _ => Err(format!("`{text}` is not one of them")),
                }
            }
            fn render(&self, _: Unit) -> String {
                match self {
                    $($ty::$value => $word,)+
                }
                .to_owned()
            }
        }
    )+};
}
words! {
    FlushMode, "ack, interval or os" { "ack" => Ack, "interval" => Interval, "os" => Os };
    TimestampType, "CreateTime or LogAppendTime" { "CreateTime" => CreateTime, "LogAppendTime" => LogAppendTime };
    LogFormat, "text or json" { "text" => Text, "json" => Json };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_take_suffixes_and_digit_groups() {
        assert_eq!(u64::parse("64MiB", Unit::Bytes), Ok(64 << 20));
        assert_eq!(u64::parse("1_048_576", Unit::Bytes), Ok(1 << 20));
        assert_eq!(u64::parse("2 gib", Unit::Bytes), Ok(2 << 30));
        assert_eq!(Duration::parse("7d", Unit::Milliseconds), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(Duration::parse("30", Unit::Seconds), Ok(Duration::from_secs(30)));
        assert_eq!(Duration::parse("2min", Unit::Seconds), Ok(Duration::from_secs(120)));
        assert_eq!(Option::<u64>::parse("-1", Unit::Bytes), Ok(None));
    }

    #[test]
    fn numbers_that_are_none_or_do_not_fit_are_refused() {
        for text in ["", "ten", "-5", "1.5", "5 apples", "99999999999999999999", "18446744073709551615TiB"] {
            assert!(u64::parse(text, Unit::Bytes).is_err(), "{text}");
        }
        assert!(u32::parse("5000000000", Unit::None).is_err());
        assert!(u64::parse("5MiB", Unit::None).is_err(), "a count has no byte suffix");
        assert!(Duration::parse("1500ms", Unit::Seconds).is_err());
    }

    #[test]
    fn addresses_need_a_host_and_a_real_port() {
        assert_eq!("db.example:7070".parse::<HostPort>(), Ok(HostPort::new("db.example", 7070)));
        assert_eq!("[::1]:7070".parse::<HostPort>(), Ok(HostPort::new("[::1]", 7070)));
        for text in ["", ":7070", "host", "host:", "host:0", "host:70000", "::1:7070", "a b:1"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_cluster_list_names_each_node_once() {
        let formed: FormCluster = "1=a:1, 2=b:2,3=[::1]:3".parse().unwrap();
        assert_eq!(formed.to_string(), "1=a:1,2=b:2,3=[::1]:3");
        for text in ["", "1", "1=a", "x=a:1", "1=a:1,1=b:2", "a:1,b:2"] {
            assert!(text.parse::<FormCluster>().is_err(), "{text}");
        }
    }
}
