//! The fingerprint of a log's content, independent of its name, line order, compression and line
//! ends.
//!
//! In: the lines of an object. Out: the sum modulo 2^128 of the lines' XXH3 hashes, with the number
//! Invariant: the same lines, each equally often, give the same fingerprint. Different logs collide
//! by chance with a probability of about 2^-128, but the hash is not keyed: an author of lines can
//! construct a collision.

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
    /// Adds a line, with or without its end. Only the first [`LINE_BYTES_MAX`] bytes of an
    /// over-long line count, since no more of it is kept in memory. Returns the lower half of the
    /// line's hash.
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
    fn a_fingerprint_ignores_order_and_line_ends_but_not_lines() {
        let of = |lines: &[&[u8]]| {
            let mut content = Content::default();
            lines.iter().for_each(|line| _ = content.add(line));
            content
        };
        assert_eq!(of(&[b"a\n", b"b\r\n"]), of(&[b"b", b"a\n"]));
        assert_ne!(of(&[b"a", b"a"]), of(&[b"a"]));
        assert_ne!(of(&[b"a", b"b"]), of(&[b"ab"]));
        let long = [b'x'; 2 * LINE_BYTES_MAX];
        assert_eq!(of(&[&long]), of(&[&long[..LINE_BYTES_MAX + 1]]), "only the beginning counts");
    }
}
