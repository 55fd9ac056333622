//! Records as bytes on standard output, and how far they got: what a failed write took of them.

use super::ConsumeArgs;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::record_format::RecordFormat;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use strandline_client::{ConsumerRecord, OffsetAndMetadata, TopicPartition};

/// Standard output itself. The library's own handle gathers lines, so that it cannot be said what has been written.
pub fn standard_output() -> Result<File, Failure> {
    let own = io::stdout().as_fd().try_clone_to_owned();
    own.map(File::from)
        .map_err(|error| Failure::new(Exit::Failure, format_args!("no standard output: {error}")))
}

/// Where a record ends in the buffer, and what to commit once it is written.
struct Mark {
    end: usize,
    partition: TopicPartition,
    next: i64,
    leader_epoch: i32,
}

/// Gathers records and writes them at once.
pub struct Writer<W> {
    out: W,
    /// `None`: JSON.
    format: Option<RecordFormat>,
    buffer: Vec<u8>,
    /// Of the records in the buffer; none without a group, where nothing is committed.
    marks: Vec<Mark>,
    marked: bool,
    /// Bytes of the buffer that were taken before its write failed.
    failed_at: Option<usize>,
}

impl<W: Write> Writer<W> {
    pub fn new(args: &ConsumeArgs, output: Output, out: W) -> Result<Writer<W>, Failure> {
        let format = match (&args.format, output.json) {
            (Some(_), true) => return Err(Failure::usage("--format and --json exclude each other")),
            (None, true) => None,
            (Some(format), false) => Some(format.clone()),
            (None, false) => Some("%v".parse().expect("the default is right")),
        };
        let buffer = Vec::with_capacity(256 << 10);
        let marked = args.group.is_some();
        Ok(Writer { out, format, buffer, marks: Vec::new(), marked, failed_at: None })
    }

    pub fn add(&mut self, record: &ConsumerRecord) {
        match &self.format {
            Some(format) => format.write(record, &mut self.buffer),
            None => {
                serde_json::to_writer(&mut self.buffer, &JsonRecord::from(record))
                    .expect("our own type serialises");
            }
        }
        self.buffer.push(b'\n');
        if self.marked {
            self.marks.push(Mark {
                end: self.buffer.len(),
                partition: record.topic_partition(),
                next: record.offset + 1,
                leader_epoch: record.leader_epoch,
            });
        }
    }

    /// Writes what was added. After an error nothing more is to be written.
    pub fn flush(&mut self) -> Result<(), Failure> {
        let mut taken = 0;
        let error = loop {
            match self.buffer.get(taken..) {
                None | Some([]) => break None,
                Some(rest) => match self.out.write(rest) {
                    Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
                    Ok(count) => taken += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break Some(error),
                },
            }
        };
        if let Some(error) = error.or_else(|| self.out.flush().err()) {
            self.failed_at = Some(taken);
            return Err(Failure::output(&error));
        }
        self.buffer.clear();
        self.marks.clear();
        Ok(())
    }

    /// After a failed [`flush`](Self::flush): what it wrote wholly all the same, as the next offset of each partition.
    /// `None`: everything that was ever added is written.
    pub fn written_of_the_last(&self) -> Option<BTreeMap<TopicPartition, OffsetAndMetadata>> {
        let taken = self.failed_at?;
        let next = |mark: &Mark| OffsetAndMetadata {
            leader_epoch: (mark.leader_epoch >= 0).then_some(mark.leader_epoch),
            ..OffsetAndMetadata::new(mark.next)
        };
        let written = self.marks.iter().take_while(|mark| mark.end <= taken);
        Some(written.map(|mark| (mark.partition.clone(), next(mark))).collect())
    }
}

/// A record with `--json`. Keys, values and header values that are not UTF-8 come as hexadecimal digits under
/// another name.
#[derive(Serialize)]
struct JsonRecord<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<JsonHeader<'a>>,
}

#[derive(Serialize)]
struct JsonHeader<'a> {
    key: Cow<'a, str>,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

impl<'a> From<&'a ConsumerRecord> for JsonRecord<'a> {
    fn from(record: &'a ConsumerRecord) -> Self {
        let (key, key_hex) = text_or_hex(record.key.as_deref());
        let (value, value_hex) = text_or_hex(record.value.as_deref());
        let header = |header: &'a strandline_client::Header| {
            let (value, value_hex) = text_or_hex(header.value.as_deref());
            JsonHeader { key: String::from_utf8_lossy(&header.key), value, value_hex }
        };
        JsonRecord {
            topic: &record.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key,
            key_hex,
            value,
            value_hex,
            headers: record.headers.iter().map(header).collect(),
        }
    }
}

fn text_or_hex(bytes: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => (None, None),
        Some((Ok(text), _)) => (Some(text), None),
        Some((Err(_), bytes)) => (None, Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use bytes::Bytes;
    use strandline_client::Header;

    pub fn record(partition: i32, offset: i64) -> ConsumerRecord {
        ConsumerRecord {
            topic: "t".into(),
            partition,
            offset,
            timestamp_ms: 7,
            leader_epoch: 0,
            key: Some(Bytes::from_static(b"k\xff")),
            value: Some(Bytes::from_static("v\n\"é".as_bytes())),
            headers: vec![Header { key: "h".into(), value: None }],
        }
    }

    #[test]
    fn a_record_is_one_line_of_json_and_loses_no_byte() {
        let mut writer = writer(false, Vec::new());
        writer.add(&record(3, 42));
        assert_eq!(writer.buffer.iter().filter(|b| **b == b'\n').count(), 1);
        let json: serde_json::Value = serde_json::from_slice(&writer.buffer).unwrap();
        let expected = serde_json::json!({
            "topic": "t", "partition": 3, "offset": 42, "timestamp_ms": 7, "key": null, "key_hex": "6bff",
            "value": "v\n\"é", "headers": [{ "key": "h", "value": null }],
        });
        assert_eq!(json, expected);
    }

    fn writer<W: Write>(marked: bool, out: W) -> Writer<W> {
        Writer { out, format: None, buffer: Vec::new(), marks: Vec::new(), marked, failed_at: None }
    }

    /// Takes so many bytes, in small pieces, then fails.
    struct Pipe(usize);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0).min(7);
            self.0 -= taken;
            if taken == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failed_write_counts_the_records_that_were_taken_whole() {
        let records = [record(0, 5), record(1, 9), record(0, 6), record(0, 7)];
        let mut measured = writer(true, Vec::new());
        records.iter().for_each(|record| measured.add(record));
        let ends: Vec<usize> = measured.marks.iter().map(|mark| mark.end).collect();
        for taken in 0..ends[3] {
            let mut writer = writer(true, Pipe(taken));
            records.iter().for_each(|record| writer.add(record));
            writer.flush().unwrap_err();
            let written = writer.written_of_the_last().unwrap();
            let next = |partition| written.get(&TopicPartition::new("t", partition)).map(|next| next.offset);
            let expected = match ends.iter().filter(|end| **end <= taken).count() {
                0 => (None, None),
                1 => (Some(6), None),
                2 => (Some(6), Some(10)),
                _ => (Some(7), Some(10)),
            };
            assert_eq!((next(0), next(1)), expected, "{taken} bytes");
        }
    }

    #[test]
    fn what_was_written_before_is_no_part_of_the_last_write() {
        let mut writer = writer(true, Vec::new());
        writer.add(&record(0, 5));
        writer.flush().unwrap();
        assert!(writer.written_of_the_last().is_none() && writer.marks.is_empty() && !writer.out.is_empty());
    }
}
