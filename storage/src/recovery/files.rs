//! The files of logs that come back: what is missing, what is cut, what is taken in, what is written again.

use super::replay::{Files, Recovering, Replay, lower};
use crate::log::{Inner, Trouble, open_segment};
use crate::segment::{Scanner, Segment, log_dir};
use bytes::Bytes;
use std::io::{self, IoSlice};
use strandline_record::{BatchHeader, BatchIter, Offset, TopicPartition};

/// A log's buffer is written at this size.
const BUFFER_BYTES: usize = 256 << 10;

impl Replay<'_> {
    pub(super) fn remove(&self, tp: TopicPartition, name: &str) -> io::Result<()> {
        match self.shared.disk.remove_file(&log_dir(&self.shared.root, tp).join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Where a segment of the checkpoint is missing or short, if it is.
    pub(super) fn lost(
        &self,
        tp: TopicPartition,
        segment: &Segment,
        files: &Files,
    ) -> io::Result<Option<Offset>> {
        match files.segments.get(&segment.number) {
            Some((base, len)) if *base == segment.base && *len >= segment.bytes => Ok(None),
            Some((base, _)) if *base == segment.base => {
                let file = open_segment(self.shared, tp, segment)?;
                let mut end = segment.base;
                let mut scanner = Scanner::new(&*file, 0, segment.bytes, end, true);
                while let Some(Ok((_, header))) = scanner.next_batch()? {
                    end = header.next_offset();
                }
                Ok(Some(end.min(segment.end)))
            }
            _ => Ok(Some(segment.base)),
        }
    }

    /// Removes what a file holds beyond the segment.
    pub(super) fn cut_file(
        &self,
        tp: TopicPartition,
        segment: &Segment,
        files: &mut Files,
    ) -> io::Result<()> {
        if let Some((_, len)) = files.segments.get_mut(&segment.number)
            && *len > segment.bytes
        {
            open_segment(self.shared, tp, segment)?.set_len(segment.bytes)?;
            *len = segment.bytes;
        }
        Ok(())
    }

    pub(super) fn append(
        &mut self,
        inner: &mut Inner,
        tp: TopicPartition,
        log: &mut Recovering,
        number: u32,
        bytes: &Bytes,
    ) -> Result<(), Trouble> {
        let adopts = log.adopts;
        let mut headers: Vec<BatchHeader> = Vec::with_capacity(1);
        let mut skip = 0;
        for batch in BatchIter::new(bytes) {
            let Ok((header, batch)) = batch else { return Err(Trouble::Damaged(inner.end)) };
            if adopts && header.next_offset() <= inner.end {
                // The segment has it.
                skip += batch.len();
            } else {
                headers.push(header);
            }
        }
        if headers.is_empty() && skip > 0 {
            return Ok(());
        }
        if adopts && headers.first().is_some_and(|first| first.base_offset() > inner.end) {
            // What lies between was appended without the journal and is lost, as it may be. The flushed end
            // waited there, so this was not acknowledged.
            return Ok(());
        }
        let stale = inner.active().is_none_or(|active| active.number != number) && inner.next_number > number;
        if headers.is_empty() || stale || inner.check_continues(&headers).is_err() {
            return Err(Trouble::Damaged(inner.end));
        }
        // The same files as before: the journal says which.
        if inner.active().is_none_or(|active| active.number != number) {
            self.write_buffer_of(inner, tp, log)?;
            inner.next_number = inner.next_number.max(number);
            inner.begin_segment(self.shared, tp, headers[0].base_offset(), self.now_ms)?;
        }
        headers.iter().for_each(|header| inner.take_in(header, self.now_ms));
        log.buffer.extend_from_slice(&bytes[skip..]);
        self.buffered += bytes.len() - skip;
        if log.buffer.len() >= BUFFER_BYTES {
            self.write_buffer_of(inner, tp, log)?;
        }
        Ok(())
    }

    pub(super) fn write_buffer(&mut self, tp: TopicPartition, log: &mut Recovering) -> io::Result<()> {
        let owner = log.log.clone();
        let mut inner = owner.lock();
        self.write_buffer_of(&mut inner, tp, log)
    }

    pub(super) fn write_buffer_of(
        &mut self,
        inner: &mut Inner,
        tp: TopicPartition,
        log: &mut Recovering,
    ) -> io::Result<()> {
        if log.buffer.is_empty() {
            return Ok(());
        }
        let active = *inner.active().expect("what is buffered belongs to it");
        let file = open_segment(self.shared, tp, &active)?;
        file.write_all_at(&[IoSlice::new(&log.buffer)], active.bytes - log.buffer.len() as u64)?;
        self.buffered -= log.buffer.len();
        log.buffer = Vec::new();
        Ok(())
    }

    pub(super) fn write_buffers(&mut self) -> io::Result<()> {
        let mut logs = std::mem::take(&mut self.logs);
        let written = logs.iter_mut().try_for_each(|(tp, log)| self.write_buffer(*tp, log));
        self.logs = logs;
        written
    }

    /// Takes in what lies in the files beyond the checkpoint: all of those below `number`, and that one until the
    /// log ends at `until`. Each file continues those before it; where it begins below their end, they
    /// were truncated.
    pub(super) fn adopt(
        &self,
        tp: TopicPartition,
        log: &mut Recovering,
        number: u32,
        until: Option<Offset>,
    ) -> io::Result<()> {
        if !log.adopts || log.broken {
            return Ok(());
        }
        let owner = log.log.clone();
        let inner = &mut *owner.lock();
        loop {
            if let Some(active) = inner.active().copied() {
                let until = (active.number == number).then_some(until).flatten();
                if active.number < number || until.is_some() {
                    let whole = self.adopt_batches(
                        tp,
                        inner,
                        &active,
                        log.files.segments.get(&active.number),
                        until,
                    )?;
                    if !whole {
                        return Ok(());
                    }
                }
            }
            let next = inner.next_number;
            if next > number || next == number && until.is_none() {
                return Ok(());
            }
            match log.files.segments.get(&next) {
                // Its first write failed, or was lost and comes again from the journal.
                Some((_, 0)) if next < number => inner.next_number = next + 1,
                Some((_, 0)) => return Ok(()),
                Some((base, _)) if inner.start <= *base && *base <= inner.end => {
                    if *base < inner.end {
                        match inner.cut(self.shared, tp, *base) {
                            Ok(end) if end == *base => {}
                            Ok(_) => return Ok(()),
                            Err(Trouble::Damaged(from)) => {
                                lower(&mut inner.damaged, from);
                                log.broken = true;
                                return Ok(());
                            }
                            Err(Trouble::Full) => return Err(io::ErrorKind::StorageFull.into()),
                            Err(Trouble::Io(error)) => return Err(error),
                        }
                    }
                    inner.close_active(self.shared, tp);
                    inner.segments.push_back(Segment::new(*base, next, self.now_ms));
                    inner.next_number = next + 1;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Whether the file was taken in to its end.
    pub(super) fn adopt_batches(
        &self,
        tp: TopicPartition,
        inner: &mut Inner,
        active: &Segment,
        file: Option<&(Offset, u64)>,
        until: Option<Offset>,
    ) -> io::Result<bool> {
        let Some((_, len)) = file.filter(|(_, len)| *len > active.bytes) else { return Ok(true) };
        let file = open_segment(self.shared, tp, active)?;
        let mut scanner = Scanner::new(&*file, active.bytes, *len, inner.end, true);
        while until.is_none_or(|until| inner.end < until) {
            match scanner.next_batch()? {
                Some(Ok((_, header))) if inner.check_continues(&[header]).is_ok() => {
                    inner.take_in(&header, self.now_ms)
                }
                None => return Ok(true),
                // Torn by the crash.
                _ => break,
            }
        }
        Ok(false)
    }
}
