//! How much of a new object stands in another counted one.
//!
//! In: samples of the new objects' lines, and those that earlier runs have left. Out: pairs of objects
//! with rows in common. Invariant: nothing is dropped or held for it, since equal rows can be separate
//! purchases; objects that share no month are not compared.

use super::{Attempt, Read, Wish};
use crate::domain::month::Month;
use crate::error::Result;
use crate::kernel::line_sample::{LineSample, lets_in};
use crate::limits::OVERLAP_RUNS_MAX;
use crate::output::lake::damaged;
use crate::output::line_samples;
use crate::planted::Bug;
use crate::report::Overlap;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Rows in common, by new object and by the level that they were found at.
type Found = BTreeMap<usize, (u32, u64)>;

impl Attempt<'_> {
    /// Overlaps of what this run counts, the largest first.
    pub(super) fn overlaps(&self, wish: &Wish, read: &Read) -> Result<Vec<Overlap>> {
        let mut overlaps = Vec::new();
        if wish.recount().is_some() || Bug::OverlapNotTold.is_planted() {
            return Ok(overlaps);
        }
        let new: Vec<(&str, &LineSample, BTreeSet<Month>)> = read
            .kept
            .iter()
            .map(|(object, outcome)| {
                (object.name.as_str(), &outcome.sample, outcome.by_month.keys().copied().collect())
            })
            .collect();
        let index = Index::new(new.iter().map(|(_, sample, _)| *sample));
        let mut add = |counted: &str, found: Found| {
            overlaps.extend(found.into_iter().map(|(object, (level, rows))| Overlap {
                source_object: new[object].0.to_string(),
                counted_object: counted.to_string(),
                rows: rows << level,
                estimated: level > 0,
            }));
        };
        for (at, (name, sample, months)) in new.iter().enumerate() {
            // Of two new objects the one that comes later overlaps the earlier.
            add(name, index.find(sample, |other| other > at && !new[other].2.is_disjoint(months)));
        }
        let touched: BTreeSet<Month> = read.sum.by_month.keys().copied().collect();
        self.for_each_counted(&touched, |counted, months, sample| {
            add(counted, index.find(&sample, |object| !new[object].2.is_disjoint(months)));
        })?;
        overlaps.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.source_object.cmp(&b.source_object)));
        Ok(overlaps)
    }

    /// Calls `take` with the samples of objects that are counted for one of these months: those of the
    /// newest runs, so that many small runs do not ask the store for ever more.
    fn for_each_counted(
        &self,
        touched: &BTreeSet<Month>,
        mut take: impl FnMut(&str, &BTreeSet<Month>, LineSample),
    ) -> Result<()> {
        // Ids of runs rise with time.
        let mut by_run: BTreeMap<&str, BTreeMap<&str, BTreeSet<Month>>> = BTreeMap::new();
        for (name, entry) in self.head.ledger.counted() {
            let months: BTreeSet<Month> = entry.months.iter().map(|m| m.month).collect();
            if !months.is_disjoint(touched) {
                by_run.entry(&entry.run_id).or_default().insert(name, months);
            }
        }
        for (run_id, objects) in by_run.into_iter().rev().take(OVERLAP_RUNS_MAX) {
            // Runs of an earlier program kept none.
            let manifest = self.lake.manifest_of_run(run_id)?;
            let Some(record) = manifest.and_then(|manifest| manifest.line_samples) else { continue };
            let of_run = line_samples::read(self.lake.read_file(&record)?);
            for (name, sample) in of_run.ok_or_else(|| damaged(&record.path))? {
                if let Some(months) = objects.get(name.as_str()) {
                    take(&name, months, sample);
                }
            }
        }
        Ok(())
    }
}

/// The lines of the new objects, by hash.
struct Index {
    levels: Vec<u32>,
    /// Which objects hold the line, and how often.
    lines: HashMap<u64, Vec<(usize, u64)>>,
}

impl Index {
    fn new<'s>(samples: impl Iterator<Item = &'s LineSample>) -> Index {
        let mut index = Index { levels: Vec::new(), lines: HashMap::new() };
        for (object, sample) in samples.enumerate() {
            index.levels.push(sample.level);
            for hash in &sample.hashes {
                let holders = index.lines.entry(*hash).or_default();
                match holders.last_mut() {
                    Some((last, count)) if *last == object => *count += 1,
                    _ => holders.push((object, 1)),
                }
            }
        }
        index
    }

    /// Rows that stand in `sample` and in one of the `wanted` new objects, as often as in both.
    fn find(&self, sample: &LineSample, wanted: impl Fn(usize) -> bool) -> Found {
        let mut hashes = sample.hashes.clone();
        hashes.sort_unstable();
        let mut found = Found::new();
        for same in hashes.chunk_by(|a, b| a == b) {
            let holders = self.lines.get(&same[0]).map_or(&[][..], |holders| holders);
            for (object, count) in holders.iter().filter(|(object, _)| wanted(*object)) {
                let level = self.levels[*object].max(sample.level);
                if lets_in(level, same[0]) {
                    found.entry(*object).or_insert((level, 0)).1 += (*count).min(same.len() as u64);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_common_are_counted_as_often_as_both_hold_them() {
        let sample = |level, hashes: &[u64]| LineSample { level, hashes: hashes.to_vec() };
        let new = [sample(0, &[1, 1, 1, 2, 4, 8]), sample(0, &[5])];
        let index = Index::new(new.iter());
        let found = index.find(&sample(0, &[1, 1, 4, 5, 9]), |_| true);
        assert_eq!(found, Found::from([(0, (0, 3)), (1, (0, 1))]));
        assert_eq!(index.find(&sample(2, &[4, 8, 12]), |object| object == 0), Found::from([(0, (2, 2))]));
        assert_eq!(index.find(&sample(0, &[1]), |_| false), Found::new());
    }
}
