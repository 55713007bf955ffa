//! Thrift's compact protocol, as far as Parquet's footers and page headers need it.
//!
//! In: bytes that somebody else may have written. Out: the fields that a caller asks for; the others
//! are passed over.
//! Invariant: no list is longer than the bytes behind it, no nesting is deep, and nothing is
//! allocated, whatever the bytes claim.

/// Types of fields, as the protocol numbers them.
const TRUE: u8 = 1;
pub const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
pub const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
pub const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
pub const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// Structs and lists within each other; Parquet's own need eight.
const DEPTH_MAX: u32 = 32;

/// Elements of one list: row groups, columns or nodes of a schema.
const ELEMENTS_MAX: u64 = 1 << 20;

/// What was not read yet. Every function gives none where the bytes are not what they should be.
pub struct Compact<'b> {
    rest: &'b [u8],
    depth: u32,
}

impl<'b> Compact<'b> {
    pub fn new(bytes: &'b [u8]) -> Compact<'b> {
        Compact { rest: bytes, depth: 0 }
    }

    /// How many bytes are left.
    pub fn rest(&self) -> usize {
        self.rest.len()
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn pass(&mut self, bytes: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// A whole number of 16 to 64 bits.
    pub fn whole(&mut self) -> Option<i64> {
        let zigzag = self.varint()?;
        Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    /// How many elements a list has, and of what type.
    pub fn list(&mut self) -> Option<(u64, u8)> {
        let header = self.byte()?;
        let count = match header >> 4 {
            15 => self.varint()?,
            short => u64::from(short),
        };
        (count <= ELEMENTS_MAX.min(self.rest.len() as u64)).then_some((count, header & 15))
    }

    /// Walks over the fields of a struct. `take` gets the number and type of each, and gives true
    /// where it has read the field; the others are passed over.
    pub fn fields(&mut self, mut take: impl FnMut(&mut Self, i64, u8) -> Option<bool>) -> Option<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        let mut id = 0i64;
        loop {
            let header = self.byte()?;
            if header == 0 {
                self.depth -= 1;
                return Some(());
            }
            id = match header >> 4 {
                0 => self.whole()?,
                delta => id.checked_add(i64::from(delta))?,
            };
            let kind = header & 15;
            if !take(self, id, kind)? {
                self.pass_field(kind)?;
            }
        }
    }

    fn pass_field(&mut self, kind: u8) -> Option<()> {
        match kind {
            // The type says it all.
            TRUE | FALSE => Some(()),
            _ => self.pass_element(kind),
        }
    }

    fn pass_element(&mut self, kind: u8) -> Option<()> {
        match kind {
            TRUE | FALSE | BYTE => self.pass(1),
            I16 | I32 | I64 => self.varint().map(|_| ()),
            DOUBLE => self.pass(8),
            UUID => self.pass(16),
            BINARY => {
                let bytes = self.varint()?;
                self.pass(bytes)
            }
            STRUCT => self.fields(|_, _, _| Some(false)),
            LIST | SET => self.deeper(|this| {
                let (count, kind) = this.list()?;
                (0..count).try_for_each(|_| this.pass_element(kind))
            }),
            MAP => self.deeper(Self::pass_map),
            _ => None,
        }
    }

    fn pass_map(&mut self) -> Option<()> {
        let count = self.varint()?;
        if count == 0 {
            return Some(());
        }
        if count > ELEMENTS_MAX.min(self.rest.len() as u64) {
            return None;
        }
        let kinds = self.byte()?;
        (0..count).try_for_each(|_| {
            self.pass_element(kinds >> 4)?;
            self.pass_element(kinds & 15)
        })
    }

    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        read(self)?;
        self.depth -= 1;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_nobody_asks_for_are_passed_over() {
        // 1: i32 -3, 2: list of two binaries, 3: true, 6: struct { 1: i64 300 }, end.
        let bytes = [0x15, 5, 0x19, 0x28, 1, b'a', 0, 0x11, 0x3c, 0x16, 0xd8, 4, 0, 0];
        let (mut compact, mut found) = (Compact::new(&bytes), Vec::new());
        let read = compact.fields(|this, id, kind| {
            if id != 1 {
                return Some(false);
            }
            found.push((this.whole()?, kind));
            Some(true)
        });
        assert_eq!((read, found, compact.rest()), (Some(()), vec![(-3, I32)], 0));
    }

    #[test]
    fn claims_that_the_bytes_do_not_keep_are_refused() {
        let pass = |bytes: &[u8]| Compact::new(bytes).fields(|_, _, _| Some(false));
        assert_eq!(pass(&[0x18, 0xff, 0xff, 0xff, 0x7f, 0]), None, "a text longer than the bytes");
        assert_eq!(pass(&[0x19, 0xfc, 0xff, 0xff, 0xff, 0x7f, 0]), None, "a list longer than the bytes");
        assert_eq!(pass(&[0x1b, 0xff, 0xff, 0x7f, 0x88, 0]), None, "a map longer than the bytes");
        assert_eq!(pass(&[0x1c; 100_000]), None, "structs without end");
        assert_eq!(pass(&[0x1f, 0]), None, "an unknown type");
        assert_eq!(pass(&[0x16, 0xff]), None, "a number without end");
    }
}
