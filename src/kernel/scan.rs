//! Scanner: bytes in, blocks of whole lines out.
//!
//! In: a reader positioned at byte `start` of an object. Out: blocks of the lines that start before
//! `end`, in order; of over-long lines only the length and the beginning.
//! Invariant: every byte from the first line start to the end of the last line is in exactly one
//! block; a line belongs to the split in which it starts; memory does not grow with the length of a
//! line.

use crate::limits::{LINE_BYTES_MAX, READ_BYTES};
use crate::planted::Bug;
use std::io::{Read, Result};

/// Whole lines at their place in the (decompressed) object.
#[derive(Debug, PartialEq, Eq)]
pub enum Block<'a> {
    /// At least one line; only the last line of an object may lack its newline.
    Lines { offset: u64, bytes: &'a [u8] },
    /// A line of more than [`LINE_BYTES_MAX`] bytes including its end; `head` is its beginning.
    Overlong { offset: u64, line_bytes: u64, head: &'a [u8] },
}

impl Block<'_> {
    pub fn line_bytes(&self) -> u64 {
        match self {
            Block::Lines { bytes, .. } => bytes.len() as u64,
            Block::Overlong { line_bytes, .. } => *line_bytes,
        }
    }
}

/// Splits the bytes of a reader into blocks.
pub struct Scanner<R> {
    reader: R,
    buffer: Vec<u8>,
    /// The end of the data in `buffer`; what precedes `taken` has been returned.
    filled: usize,
    taken: usize,
    /// The offset of `buffer[taken]` in the object.
    offset: u64,
    /// Lines that start here or later belong to the next split.
    end: u64,
    ended: bool,
}

impl<R: Read> Scanner<R> {
    /// A scanner of the lines that start in `start..end`. The reader is positioned at `start`, or
    /// one byte earlier if `start` is not 0: that byte decides whether a line starts at `start`.
    /// Reads `read_bytes` at a time, at most [`READ_BYTES`].
    pub fn new(reader: R, start: u64, end: u64, read_bytes: usize) -> Result<Scanner<R>> {
        let mut scanner = Scanner {
            reader,
            buffer: vec![0; read_bytes.clamp(1, READ_BYTES) + LINE_BYTES_MAX],
            filled: 0,
            taken: 0,
            offset: start.saturating_sub(1),
            end,
            ended: false,
        };
        match start {
            0 => scanner.skip_byte_order_mark()?,
            _ => scanner.skip_to_start()?,
        }
        Ok(scanner)
    }

    /// The next block; `None` at the end of the split.
    pub fn next_block(&mut self) -> Result<Option<Block<'_>>> {
        if self.offset >= self.end {
            return Ok(None);
        }
        loop {
            let data = &self.buffer[self.taken..self.filled];
            let ends_here = self.ended && !Bug::LastLineLost.is_planted();
            let whole = if ends_here { data.len() } else { last_line_end(data) };
            if whole > 0 {
                return Ok(Some(self.take_lines(whole)));
            }
            if self.ended {
                return Ok(None);
            }
            if data.len() > LINE_BYTES_MAX {
                return self.take_overlong().map(Some);
            }
            self.fill()?;
        }
    }

    /// Returns the first `whole` bytes, or fewer if the split ends earlier.
    fn take_lines(&mut self, whole: usize) -> Block<'_> {
        let data = &self.buffer[self.taken..self.taken + whole];
        let mut bytes = whole;
        if let Ok(to_end) = usize::try_from(self.end - self.offset)
            && to_end < bytes
        {
            // The line that contains the last byte before `end` is the last one of this split.
            let last = if Bug::SplitTakesNextLine.is_planted() { to_end } else { to_end - 1 };
            bytes = line_end(data, last);
        }
        let offset = self.offset;
        let start = self.taken;
        self.taken += bytes;
        self.offset += bytes as u64;
        Block::Lines { offset, bytes: &self.buffer[start..start + bytes] }
    }

    /// Skips a line that does not end within the buffer, in constant memory.
    fn take_overlong(&mut self) -> Result<Block<'_>> {
        let offset = self.offset;
        let head = self.buffer[self.taken..self.taken + LINE_BYTES_MAX].to_vec();
        let line_bytes = self.skip_line()?;
        // Moves the data behind the line to make room for its head.
        let rest = self.taken..self.filled;
        let kept = rest.len();
        self.buffer.copy_within(rest, LINE_BYTES_MAX);
        self.buffer[..LINE_BYTES_MAX].copy_from_slice(&head);
        (self.taken, self.filled) = (LINE_BYTES_MAX, LINE_BYTES_MAX + kept);
        Ok(Block::Overlong { offset, line_bytes, head: &self.buffer[..LINE_BYTES_MAX] })
    }

    /// Skips past the next newline. Stops reading at the end of the split, since no line of it can
    /// start there: otherwise every split crossed by a long line would read the rest of it.
    fn skip_to_start(&mut self) -> Result<()> {
        while self.offset < self.end {
            let data = &self.buffer[self.taken..self.filled];
            let found = memchr::memchr(b'\n', data);
            let bytes = found.map_or(data.len(), |at| at + 1);
            self.taken += bytes;
            self.offset += bytes as u64;
            if found.is_some() || self.ended {
                return Ok(());
            }
            self.fill()?;
        }
        Ok(())
    }

    /// Skips past the next newline, or to the end of the object. Returns the number of bytes
    /// skipped.
    fn skip_line(&mut self) -> Result<u64> {
        let mut skipped = 0;
        loop {
            let data = &self.buffer[self.taken..self.filled];
            let found = memchr::memchr(b'\n', data);
            let bytes = found.map_or(data.len(), |at| at + 1);
            self.taken += bytes;
            self.offset += bytes as u64;
            skipped += bytes as u64;
            if found.is_some() || self.ended {
                return Ok(skipped);
            }
            self.fill()?;
        }
    }

    fn skip_byte_order_mark(&mut self) -> Result<()> {
        while self.filled < 3 && !self.ended {
            self.fill()?;
        }
        if self.buffer[..self.filled].starts_with(b"\xEF\xBB\xBF") {
            (self.taken, self.offset) = (3, 3);
            // The line after the mark counts as starting at 0, even if the split ends within the
            // mark.
            self.end = self.end.max(4);
        }
        Ok(())
    }

    /// Moves the remaining data to the front and reads once behind it.
    fn fill(&mut self) -> Result<()> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        // Reserves room for an over-long head in front of the remaining data.
        let room = self.buffer.len() - LINE_BYTES_MAX;
        let until = (self.filled + room).min(self.buffer.len());
        let read = self.reader.read(&mut self.buffer[self.filled..until])?;
        self.filled += read;
        self.ended = read == 0;
        Ok(())
    }
}

/// The number of bytes of `data` that are whole lines.
fn last_line_end(data: &[u8]) -> usize {
    memchr::memrchr(b'\n', data).map_or(0, |at| at + 1)
}

/// The end of the line that contains byte `at`.
fn line_end(data: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &data[at..]).map_or(data.len(), |more| at + more + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The lines of all splits of `data`, as (offset, line length including its end).
    fn lines(data: &[u8], cuts: &[u64], read_bytes: usize) -> Vec<(u64, u64)> {
        let mut edges = vec![0, data.len() as u64];
        edges.extend(cuts.iter().map(|c| c % (data.len() as u64 + 1)));
        edges.sort_unstable();
        let mut found = Vec::new();
        for edge in edges.windows(2).filter(|w| w[0] < w[1]) {
            let reader = &data[edge[0].saturating_sub(1) as usize..];
            let mut scanner = Scanner::new(reader, edge[0], edge[1], read_bytes).unwrap();
            while let Some(block) = scanner.next_block().unwrap() {
                match block {
                    Block::Overlong { offset, line_bytes, .. } => found.push((offset, line_bytes)),
                    Block::Lines { mut offset, bytes } => {
                        for line in bytes.split_inclusive(|&b| b == b'\n') {
                            found.push((offset, line.len() as u64));
                            offset += line.len() as u64;
                        }
                    }
                }
            }
        }
        found
    }

    fn expected_lines(data: &[u8]) -> Vec<(u64, u64)> {
        let mut offset = if data.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        let mut found = Vec::new();
        for line in data[offset as usize..].split_inclusive(|&b| b == b'\n') {
            found.push((offset, line.len() as u64));
            offset += line.len() as u64;
        }
        found
    }

    #[test]
    fn a_line_longer_than_the_buffer_is_skipped_alone() {
        for long in [LINE_BYTES_MAX, LINE_BYTES_MAX + 1, 5 * LINE_BYTES_MAX, 3 * READ_BYTES] {
            let mut data = b"before\n".to_vec();
            data.resize(data.len() + long, b'x');
            data.extend_from_slice(b"\nafter\nlast");
            for cuts in [vec![], vec![3, 9, 5000, 70_000, 200_000], vec![long as u64 + 7, long as u64 + 8]] {
                assert_eq!(lines(&data, &cuts, 4096), expected_lines(&data));
            }
        }
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_splits(
            data in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x'), Just(0xEF)], 0..200),
            mark in any::<bool>(),
            cuts in proptest::collection::vec(any::<u64>(), 0..8),
            read_bytes in 1usize..40,
        ) {
            let mut data = data;
            if mark { data.splice(0..0, *b"\xEF\xBB\xBF"); }
            prop_assert_eq!(lines(&data, &cuts, read_bytes), expected_lines(&data));
        }
    }
}
