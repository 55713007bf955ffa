//! A hash table of short texts that keeps common ones close together in memory.
//!
//! In: short texts without NUL, each with a value. Out: the values. A small table of slots refers
//! to entries of one cache line each, in order of insertion: frequent texts occur early, so the hot
//! lines are adjacent.
//! Invariant: memory is bounded: a full table is cleared, which costs time but changes no result.
//! The hash is keyed per process, so chosen texts cannot be made to collide.

use super::prefetch::prefetch;
use super::short_text::{ShortText, Words};

/// Initial capacity in entries.
const ENTRIES_MIN: usize = 1024;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Entry<V> {
    words: Words,
    value: V,
}

/// A slot: some bits of the hash and the index of the entry; 0 if free.
///
/// ```text
/// | 1 | tag 13 | entry 18 |
/// ```
#[derive(Clone, Copy, Default)]
struct Slot(u32);

const ENTRY_BITS: u32 = 18;

impl Slot {
    fn new(hash: u64, entry: usize) -> Slot {
        assert!(entry >> ENTRY_BITS == 0);
        Slot(Slot::tag(hash) << ENTRY_BITS | entry as u32)
    }

    /// The tag is from the upper half of the hash, since the lower half selects the slot.
    #[inline]
    fn tag(hash: u64) -> u32 {
        (hash >> (32 + ENTRY_BITS)) as u32 | 1 << (31 - ENTRY_BITS)
    }

    #[inline]
    fn entry_of(self, hash: u64) -> Option<usize> {
        let is_of = self.0 >> ENTRY_BITS == Slot::tag(hash);
        is_of.then_some((self.0 & ((1 << ENTRY_BITS) - 1)) as usize)
    }

    fn is_free(self) -> bool {
        self.0 == 0
    }
}

pub struct SellerTable<V> {
    /// At least twice as many as entries, which keeps probe sequences short.
    slots: Vec<Slot>,
    entries: Vec<Entry<V>>,
    most: usize,
    key: [u64; 6],
}

impl<V: Copy> SellerTable<V> {
    /// A table of at most `most` texts. Panics unless `most` is a power of two of at most 2^18.
    pub fn new(most: usize) -> SellerTable<V> {
        assert!(most.is_power_of_two() && most <= 1 << ENTRY_BITS && size_of::<Entry<V>>() == 64);
        let random = |_| getrandom::u64().expect("the operating system has random numbers");
        SellerTable { slots: Vec::new(), entries: Vec::new(), most, key: [0; 6].map(random) }
    }

    /// The hash of a text. Prefetches its first slot.
    #[inline]
    pub fn hash(&self, text: &ShortText) -> u64 {
        let hash = self.hash_words(text.words());
        prefetch(self.slots.get(self.index(hash)));
        hash
    }

    /// As wyhash: products of keyed words, their halves folded together.
    #[inline]
    fn hash_words(&self, words: &Words) -> u64 {
        let folded = |k: usize| {
            let product = u128::from(words[k] ^ self.key[k]) * u128::from(words[k + 1] ^ self.key[k + 1]);
            product as u64 ^ (product >> 64) as u64
        };
        let product = u128::from(folded(0) ^ folded(2).rotate_left(21) ^ folded(4).rotate_left(42))
            * u128::from(self.key[0] | 1);
        product as u64 ^ (product >> 64) as u64
    }

    /// Prefetches the entry of a hash, once its slots are in the cache. Follows the probe sequence:
    /// in a table that is a quarter full, one entry in seven is not at its first slot.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        let mut index = self.index(hash);
        while let Some(slot) = self.slots.get(index).filter(|slot| !slot.is_free()) {
            if let Some(entry) = slot.entry_of(hash) {
                return prefetch(self.entries.get(entry));
            }
            index = (index + 1) & (self.slots.len() - 1);
        }
    }

    /// The value of a text; `hash` is its hash.
    #[inline]
    pub fn get(&self, text: &ShortText, hash: u64) -> Option<&V> {
        let mut index = self.index(hash);
        loop {
            let slot = self.slots.get(index)?;
            if let Some(entry) = slot.entry_of(hash) {
                let entry = &self.entries[entry];
                // Over-long texts share their words and are never inserted.
                if differing(&entry.words, text.words()) == 0 {
                    return Some(&entry.value);
                }
            }
            if slot.is_free() {
                return None;
            }
            index = (index + 1) & (self.slots.len() - 1);
        }
    }

    /// Inserts the value of a text that is not in the table; ignores over-long texts.
    pub fn insert(&mut self, text: &ShortText, value: V) {
        if !text.is_whole() {
            return;
        }
        if 2 * (self.entries.len() + 1) > self.slots.len() {
            self.make_room();
        }
        self.entries.push(Entry { words: *text.words(), value });
        self.add_slot(self.entries.len() - 1);
    }

    fn add_slot(&mut self, entry: usize) {
        let hash = self.hash_words(&self.entries[entry].words);
        let mut index = self.index(hash);
        while !self.slots[index].is_free() {
            index = (index + 1) & (self.slots.len() - 1);
        }
        self.slots[index] = Slot::new(hash, entry);
    }

    /// Doubles the slots, or clears a full table.
    fn make_room(&mut self) {
        if self.entries.len() >= self.most {
            self.entries.clear();
            self.slots.fill(Slot::default());
            return;
        }
        // Reserves everything at once: untouched pages cost nothing, while growing would copy the
        // entries.
        self.entries.reserve_exact(self.most - self.entries.len());
        let slots = (2 * self.slots.len()).max(2 * ENTRIES_MIN.min(self.most));
        self.slots.clear();
        self.slots.resize(slots, Slot::default());
        (0..self.entries.len()).for_each(|entry| self.add_slot(entry));
    }

    /// The first slot of a hash.
    #[inline]
    fn index(&self, hash: u64) -> usize {
        hash as usize & self.slots.len().wrapping_sub(1)
    }

    #[cfg(test)]
    pub fn texts(&self) -> usize {
        self.entries.len()
    }
}

/// The bits that differ. Written out, since a call to `memcmp` takes longer for few words.
#[inline]
fn differing(a: &Words, b: &Words) -> u64 {
    a.iter().zip(b).fold(0, |bits, (a, b)| bits | (a ^ b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_inserted_value_is_found(
            texts in prop::collection::vec("[ab]{0,3}|[ab]{7,9}|[a-c]{45,51}", 1..300),
            most in prop::sample::select(vec![4usize, 16, 1024]),
        ) {
            let value = |text: &str| [text.len() as u32, 1, 2, 3];
            let mut table = SellerTable::new(most);
            for text in &texts {
                let short = ShortText::of(text);
                let hash = table.hash(&short);
                match table.get(&short, hash) {
                    Some(found) => prop_assert_eq!(*found, value(text)),
                    None => table.insert(&short, value(text)),
                }
                prop_assert_eq!(table.get(&short, hash).copied(), short.is_whole().then(|| value(text)));
                prop_assert!(table.texts() <= most);
            }
        }
    }
}
