//! A memory of short texts in which the common ones lie close together.
//!
//! In: short texts without NUL, and what is known of each. Out: the same. A small table of hashes leads
//! to entries, a cache line each, in the order of their coming: what occurs often occurs early, so the
//! lines that are read all the time are neighbours.
//! Invariant: memory is bounded; a full memory forgets everything at once, which costs time and
//! changes no answer. The hash is keyed per process, so chosen texts cannot crowd a place.

use super::prefetch::prefetch;
use super::short_text::{ShortText, Words};

/// Entries of a memory that has just begun.
const ENTRIES_MIN: usize = 1024;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Entry<V> {
    words: Words,
    known: V,
}

/// Where the entry of a hash is: some bits of the hash and the index of the entry; 0 if free.
///
/// ```text
/// | 1 | tag 13 | entry 18 |
/// ```
#[derive(Clone, Copy, Default)]
struct Place(u32);

const ENTRY_BITS: u32 = 18;

impl Place {
    fn new(hash: u64, entry: usize) -> Place {
        assert!(entry >> ENTRY_BITS == 0);
        Place(Place::tag(hash) << ENTRY_BITS | entry as u32)
    }

    /// Of the upper half of the hash: the lower one chooses the place.
    #[inline]
    fn tag(hash: u64) -> u32 {
        (hash >> (32 + ENTRY_BITS)) as u32 | 1 << (31 - ENTRY_BITS)
    }

    #[inline]
    fn entry_of(self, hash: u64) -> Option<usize> {
        let is_of = self.0 >> ENTRY_BITS == Place::tag(hash);
        is_of.then_some((self.0 & ((1 << ENTRY_BITS) - 1)) as usize)
    }

    fn is_free(self) -> bool {
        self.0 == 0
    }
}

pub struct Slots<V> {
    /// Twice as many as entries at least, so that a search ends soon.
    places: Vec<Place>,
    entries: Vec<Entry<V>>,
    most: usize,
    key: [u64; 6],
}

impl<V: Copy> Slots<V> {
    /// A memory of at most so many texts, a power of two.
    pub fn new(most: usize) -> Slots<V> {
        assert!(most.is_power_of_two() && most <= 1 << ENTRY_BITS && size_of::<Entry<V>>() == 64);
        let random = |_| getrandom::u64().expect("the operating system has random numbers");
        Slots { places: Vec::new(), entries: Vec::new(), most, key: [0; 6].map(random) }
    }

    /// What a search for a text begins with. Its place is asked for from memory, so that it is in
    /// the cache some time later.
    #[inline]
    pub fn hash(&self, text: &ShortText) -> u64 {
        let hash = self.hash_words(text.words());
        prefetch(self.places.get(self.index(hash)));
        hash
    }

    /// Multiplications of keyed words, their halves folded together, as wyhash does.
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

    /// Asks for the entry in the same way, once its place is there: in a table that is a quarter
    /// full one in seven is not at the first place of its hash.
    #[inline]
    pub fn approach(&self, hash: u64) {
        let mut index = self.index(hash);
        while let Some(place) = self.places.get(index).filter(|place| !place.is_free()) {
            if let Some(entry) = place.entry_of(hash) {
                return prefetch(self.entries.get(entry));
            }
            index = (index + 1) & (self.places.len() - 1);
        }
    }

    /// What is known of a text with this hash.
    #[inline]
    pub fn get(&self, text: &ShortText, hash: u64) -> Option<&V> {
        let mut index = self.index(hash);
        loop {
            let place = self.places.get(index)?;
            if let Some(entry) = place.entry_of(hash) {
                let entry = &self.entries[entry];
                // None is kept of a text that is not whole.
                if differing(&entry.words, text.words()) == 0 {
                    return Some(&entry.known);
                }
            }
            if place.is_free() {
                return None;
            }
            index = (index + 1) & (self.places.len() - 1);
        }
    }

    /// Keeps what is known of a text that is not there yet, if it fits.
    pub fn insert(&mut self, text: &ShortText, known: V) {
        if !text.is_whole() {
            return;
        }
        if 2 * (self.entries.len() + 1) > self.places.len() {
            self.make_room();
        }
        self.entries.push(Entry { words: *text.words(), known });
        self.find_place(self.entries.len() - 1);
    }

    fn find_place(&mut self, entry: usize) {
        let hash = self.hash_words(&self.entries[entry].words);
        let mut index = self.index(hash);
        while !self.places[index].is_free() {
            index = (index + 1) & (self.places.len() - 1);
        }
        self.places[index] = Place::new(hash, entry);
    }

    /// Twice the room, or the same without what was there.
    fn make_room(&mut self) {
        if self.entries.len() >= self.most {
            self.entries.clear();
            self.places.fill(Place::default());
            return;
        }
        // All at once: what is not used is never touched, and a list that grows is copied each time.
        self.entries.reserve_exact(self.most - self.entries.len());
        let places = (2 * self.places.len()).max(2 * ENTRIES_MIN.min(self.most));
        self.places.clear();
        self.places.resize(places, Place::default());
        (0..self.entries.len()).for_each(|entry| self.find_place(entry));
    }

    /// Where the search for a hash begins.
    #[inline]
    fn index(&self, hash: u64) -> usize {
        hash as usize & self.places.len().wrapping_sub(1)
    }

    #[cfg(test)]
    pub fn texts(&self) -> usize {
        self.entries.len()
    }
}

/// The bits that differ, without a call for so few words.
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
        fn what_is_found_is_what_was_kept(
            texts in prop::collection::vec("[ab]{0,3}|[ab]{7,9}|[a-c]{45,51}", 1..300),
            most in prop::sample::select(vec![4usize, 16, 1024]),
        ) {
            let known = |text: &str| [text.len() as u32, 1, 2, 3];
            let mut slots = Slots::new(most);
            for text in &texts {
                let short = ShortText::of(text);
                let hash = slots.hash(&short);
                match slots.get(&short, hash) {
                    Some(found) => prop_assert_eq!(*found, known(text)),
                    None => slots.insert(&short, known(text)),
                }
                prop_assert_eq!(slots.get(&short, hash).copied(), short.is_whole().then(|| known(text)));
                prop_assert!(slots.texts() <= most);
            }
        }
    }
}
