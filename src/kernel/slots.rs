//! A memory of short texts, a cache line each: whether a text is known costs one miss.
//!
//! In: texts of at most [`TEXT_BYTES_MAX`] bytes, and what is known of each. Out: the same.
//! Invariant: memory is bounded; a full memory forgets everything at once, which costs time and
//! changes no answer. The hash is keyed per process, so chosen texts cannot crowd a place.

use ahash::RandomState;

/// Longer texts do not fit into their line beside what is known of them.
pub const TEXT_BYTES_MAX: usize = 39;

/// Lines of a memory that has just begun.
const SLOTS_MIN: usize = 1024;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Slot<V> {
    /// Half of the text's hash; 0 for a free line.
    tag: u32,
    length: u8,
    text: [u8; TEXT_BYTES_MAX],
    known: V,
}

/// At most three in four lines are taken, so that a search ends soon and the memory stays small.
pub struct Slots<V> {
    slots: Vec<Slot<V>>,
    taken: usize,
    most: usize,
    hasher: RandomState,
}

impl<V: Copy> Slots<V> {
    /// A memory of at most so many lines, a power of two.
    pub fn new(most: usize) -> Slots<V> {
        assert!(most >= 4 && most.is_power_of_two() && size_of::<Slot<V>>() == 64);
        Slots { slots: Vec::new(), taken: 0, most, hasher: RandomState::new() }
    }

    #[inline]
    pub fn get(&self, text: &str) -> Option<V> {
        if self.slots.is_empty() || text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (mut index, tag) = self.place(text.as_bytes());
        loop {
            let slot = &self.slots[index];
            if slot.tag == tag && slot.is(text.as_bytes()) {
                return Some(slot.known);
            }
            if slot.tag == 0 {
                return None;
            }
            index = (index + 1) & (self.slots.len() - 1);
        }
    }

    /// Keeps what is known of a text that is not there yet, if it fits.
    pub fn insert(&mut self, text: &str, known: V) {
        let bytes = text.as_bytes();
        if bytes.len() > TEXT_BYTES_MAX {
            return;
        }
        if 4 * (self.taken + 1) > 3 * self.slots.len() {
            self.make_room(known);
        }
        let mut slot = Slot { tag: 0, length: bytes.len() as u8, text: [0; TEXT_BYTES_MAX], known };
        slot.text[..bytes.len()].copy_from_slice(bytes);
        self.take(slot);
    }

    fn take(&mut self, slot: Slot<V>) {
        let (mut index, tag) = self.place(slot.bytes());
        while self.slots[index].tag != 0 {
            index = (index + 1) & (self.slots.len() - 1);
        }
        self.slots[index] = Slot { tag, ..slot };
        self.taken += 1;
    }

    /// Twice the lines, or the same number of free ones. `filler` fills what is free.
    fn make_room(&mut self, filler: V) {
        let free = Slot { tag: 0, length: 0, text: [0; TEXT_BYTES_MAX], known: filler };
        let lines = (2 * self.slots.len()).max(SLOTS_MIN.min(self.most));
        self.taken = 0;
        if lines > self.most {
            self.slots.fill(free);
            return;
        }
        let before = std::mem::replace(&mut self.slots, vec![free; lines]);
        before.into_iter().filter(|slot| slot.tag != 0).for_each(|slot| self.take(slot));
    }

    #[inline]
    fn place(&self, text: &[u8]) -> (usize, u32) {
        let hash = self.hasher.hash_one(text);
        (hash as usize & (self.slots.len() - 1), (hash >> 32) as u32 | 1)
    }

    #[cfg(test)]
    pub fn lines(&self) -> usize {
        self.slots.len()
    }
}

impl<V> Slot<V> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }

    #[inline]
    fn is(&self, text: &[u8]) -> bool {
        self.bytes() == text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_found_is_what_was_kept(
            texts in prop::collection::vec("[ab]{0,3}|[a-c]{36,42}", 1..300),
            most in prop::sample::select(vec![4usize, 16, 1024]),
        ) {
            let known = |text: &str| [text.len() as u32, 1, 2, 3];
            let mut slots = Slots::new(most);
            for text in &texts {
                match slots.get(text) {
                    Some(found) => prop_assert_eq!(found, known(text)),
                    None => slots.insert(text, known(text)),
                }
                let fits = text.len() <= TEXT_BYTES_MAX;
                prop_assert_eq!(slots.get(text), fits.then(|| known(text)));
                prop_assert!(slots.lines() <= most);
            }
        }
    }
}
