//! What a log says, whatever its name, order of lines, compression or line ends.
//!
//! In: the lines of an object. Out: one fingerprint. The sum modulo 2^128 of the lines' XXH3
//! hashes, with their count and bytes, so the splits of an object add up to it in any order.
//! Invariant: equal lines as often in both objects, equal fingerprints. It tells accidents apart,
//! not forgers: whoever can choose lines freely could make two contents meet.

use std::fmt;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Content {
    sum: u128,
    lines: u64,
    bytes: u64,
}

impl Content {
    /// Adds a line, without its line end.
    #[inline]
    pub fn add(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.sum = self.sum.wrapping_add(xxhash_rust::xxh3::xxh3_128(line));
        self.lines += 1;
        self.bytes += line.len() as u64;
    }

    pub fn plus(self, other: Content) -> Content {
        Content {
            sum: self.sum.wrapping_add(other.sum),
            lines: self.lines + other.lines,
            bytes: self.bytes + other.bytes,
        }
    }

    /// Nothing stands in it: two empty objects are no second delivery.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}-{:x}-{:x}", self.sum, self.lines, self.bytes)
    }
}
