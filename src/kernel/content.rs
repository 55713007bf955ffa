//! What a log says, whatever its name, order of lines, compression or line ends.
//!
//! In: the lines of an object. Out: one fingerprint. The sum modulo 2^128 of the lines' XXH3
//! hashes, with their count and bytes, so the splits of an object add up to it in any order.
//! Invariant: equal lines as often in both objects, equal fingerprints. It tells accidents apart,
//! not forgers: whoever can choose lines freely could make two contents meet.

use crate::limits::LINE_BYTES_MAX;
use crate::planted::Bug;
use std::fmt;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Content {
    sum: u128,
    lines: u64,
    bytes: u64,
}

impl Content {
    /// Adds a line as it stands, with or without its end. Of an over-long one the beginning counts,
    /// which is all that is ever held of it. Out: the line's own hash.
    #[inline]
    pub fn add(&mut self, raw: &[u8]) -> u64 {
        let line = match raw.get(..LINE_BYTES_MAX) {
            Some(head) if raw.len() > LINE_BYTES_MAX => head,
            _ => raw.strip_suffix(b"\n").unwrap_or(raw),
        };
        let line = match line.strip_suffix(b"\r") {
            Some(line) if !Bug::LineEndsCount.is_planted() => line,
            _ => line,
        };
        let hash = xxhash_rust::xxh3::xxh3_128(line);
        let hash = if Bug::LineOrderCounts.is_planted() { hash.rotate_left(self.lines as u32) } else { hash };
        self.sum = self.sum.wrapping_add(hash);
        self.lines += 1;
        self.bytes += line.len() as u64;
        hash as u64
    }

    pub fn plus(self, other: Content) -> Content {
        Content {
            sum: self.sum.wrapping_add(other.sum),
            lines: self.lines + other.lines,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}-{:x}-{:x}", self.sum, self.lines, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_line_ends_do_not_count_but_lines_do() {
        let of = |lines: &[&[u8]]| {
            let mut content = Content::default();
            lines.iter().for_each(|line| _ = content.add(line));
            content
        };
        assert_eq!(of(&[b"a\n", b"b\r\n"]), of(&[b"b", b"a\n"]));
        assert_ne!(of(&[b"a", b"a"]), of(&[b"a"]));
        assert_ne!(of(&[b"a", b"b"]), of(&[b"ab"]));
        let long = [b'x'; 2 * LINE_BYTES_MAX];
        assert_eq!(of(&[&long]), of(&[&long[..LINE_BYTES_MAX + 1]]), "only the beginning is held");
    }
}
