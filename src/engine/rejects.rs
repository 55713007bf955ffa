//! Rejected lines between the map and their object: in memory up to a limit, and on disk beyond it.
//!
//! In: rejects of a piece, from any worker. Out: the rejects of an object in the order of its lines.
//! Invariant: rejects in = rejects out, as they stood; those held in memory stay within the limit,
//! give or take what one worker brings at once.

use super::feed::PieceId;
use crate::domain::transaction::{Refusal, RejectReason};
use crate::error::{Error, Result};
use crate::kernel::fused::Reject;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, MutexGuard};

pub struct Rejects {
    limit_bytes: u64,
    state: Mutex<State>,
    /// By object: its pieces that have rejects, and how many lines of it come before each.
    pieces: BTreeMap<String, Vec<(PieceId, u64)>>,
}

#[derive(Default)]
struct State {
    kept: BTreeMap<PieceId, Vec<Kept>>,
    /// Which of them are in memory.
    held: Vec<(PieceId, usize)>,
    held_bytes: u64,
    /// Nameless: it is gone when the process is.
    file: Option<File>,
    written_bytes: u64,
}

/// Some rejects of a piece, one behind the other.
enum Kept {
    Held(Vec<Reject>),
    Spilled { offset: u64, bytes: usize },
}

impl Rejects {
    pub fn new(limit_bytes: u64) -> Rejects {
        Rejects { limit_bytes, state: Mutex::default(), pieces: BTreeMap::new() }
    }

    /// Bytes that went to disk.
    pub fn spilled_bytes(&self) -> u64 {
        self.state().written_bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds this")
    }

    /// Takes the next rejects of a piece. Errors: the temporary folder is full, or failed.
    pub fn keep(&self, id: PieceId, mut rejects: Vec<Reject>) -> Result<()> {
        if rejects.is_empty() {
            return Ok(());
        }
        rejects.shrink_to_fit();
        let mut state = self.state();
        state.held_bytes += rejects.iter().map(Reject::held_bytes).sum::<u64>();
        let of_piece = state.kept.entry(id).or_default();
        of_piece.push(Kept::Held(rejects));
        let index = of_piece.len() - 1;
        state.held.push((id, index));
        match state.held_bytes > self.limit_bytes {
            true => state.spill().map_err(Error::temporary_folder),
            false => Ok(()),
        }
    }

    /// Says where in its object a piece begins; of an object, piece by piece.
    pub fn place(&mut self, object: &str, id: PieceId, lines_before: u64) {
        if self.state().kept.contains_key(&id) {
            self.pieces.entry(object.to_string()).or_default().push((id, lines_before));
        }
    }

    /// The rejects of an object in their order, some at a time; their lines count from 0 in it.
    pub fn of(&self, object: &str) -> impl Iterator<Item = Result<Vec<Reject>>> {
        let pieces = self.pieces.get(object).map_or(&[][..], Vec::as_slice);
        pieces.iter().flat_map(move |(id, lines_before)| {
            let count = self.state().kept[id].len();
            (0..count).map(move |index| {
                let mut rejects = self.state().read(*id, index).map_err(Error::temporary_folder)?;
                rejects.iter_mut().for_each(|reject| reject.line += lines_before);
                Ok(rejects)
            })
        })
    }
}

impl State {
    /// Moves everything that is held to disk.
    fn spill(&mut self) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        file.seek(SeekFrom::Start(self.written_bytes))?;
        let mut file = BufWriter::new(file);
        for (id, index) in self.held.drain(..) {
            let kept = &mut self.kept.get_mut(&id).expect("what is held is kept")[index];
            let Kept::Held(rejects) = kept else { continue };
            let mut bytes = Vec::new();
            rejects.iter().for_each(|reject| write(reject, &mut bytes));
            file.write_all(&bytes)?;
            *kept = Kept::Spilled { offset: self.written_bytes, bytes: bytes.len() };
            self.written_bytes += bytes.len() as u64;
        }
        file.flush()?;
        self.held_bytes = 0;
        Ok(())
    }

    fn read(&mut self, id: PieceId, index: usize) -> std::io::Result<Vec<Reject>> {
        let (offset, bytes) = match &self.kept[&id][index] {
            Kept::Held(rejects) => return Ok(rejects.clone()),
            Kept::Spilled { offset, bytes } => (*offset, *bytes),
        };
        let mut spilled = vec![0; bytes];
        let file = self.file.as_mut().expect("what was spilled is in the file");
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut spilled)?;
        let (mut rest, mut rejects) = (spilled.as_slice(), Vec::new());
        while !rest.is_empty() {
            rejects.push(read(&mut rest)?);
        }
        Ok(rejects)
    }
}

/// Line, offset, reason, column and length, in that order and little-endian, and the bytes.
fn write(reject: &Reject, bytes: &mut Vec<u8>) {
    bytes.extend(reject.line.to_le_bytes());
    bytes.extend(reject.byte_offset.to_le_bytes());
    bytes.push(reject.refusal.reason as u8);
    bytes.extend(reject.refusal.column.to_le_bytes());
    bytes.extend((reject.raw.len() as u32).to_le_bytes());
    bytes.extend(&reject.raw);
}

fn read(from: &mut &[u8]) -> std::io::Result<Reject> {
    let line = u64::from_le_bytes(next(from)?);
    let byte_offset = u64::from_le_bytes(next(from)?);
    let [reason] = next(from)?;
    let reason = RejectReason::ALL.get(usize::from(reason)).ok_or(std::io::ErrorKind::InvalidData)?;
    let column = u32::from_le_bytes(next(from)?);
    let mut raw = vec![0; u32::from_le_bytes(next(from)?) as usize];
    from.read_exact(&mut raw)?;
    Ok(Reject { line, byte_offset, refusal: Refusal { reason: *reason, column }, raw })
}

fn next<const N: usize>(from: &mut &[u8]) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reject(line: u64) -> Reject {
        let reason = RejectReason::ALL[line as usize % RejectReason::ALL.len()];
        let refusal = Refusal { reason, column: line as u32 * 3 };
        Reject { line, byte_offset: line * 100, refusal, raw: vec![b'\t'; line as usize % 7] }
    }

    /// Two objects, of two pieces each that come in bits and in no order.
    fn kept(limit_bytes: u64) -> Rejects {
        let mut rejects = Rejects::new(limit_bytes);
        let id = |split, sequence| PieceId { split, sequence };
        rejects.keep(id(1, 1), vec![reject(4)]).unwrap();
        rejects.keep(id(0, 0), vec![reject(0), reject(2)]).unwrap();
        rejects.keep(id(1, 0), vec![reject(9), reject(10)]).unwrap();
        rejects.keep(id(0, 0), vec![reject(300)]).unwrap();
        rejects.keep(id(0, 1), Vec::new()).unwrap();
        let lines_before =
            [("a", id(0, 0), 0), ("a", id(0, 1), 400), ("b", id(1, 0), 0), ("b", id(1, 1), 20)];
        lines_before.into_iter().for_each(|(object, id, lines)| rejects.place(object, id, lines));
        rejects
    }

    #[test]
    fn rejects_come_back_in_the_order_of_their_lines_wherever_they_were_kept() {
        for limit_bytes in [0, 150, u64::MAX] {
            let rejects = kept(limit_bytes);
            let of = |object| rejects.of(object).collect::<Result<Vec<_>>>().unwrap().concat();
            assert_eq!(of("a"), [reject(0), reject(2), reject(300)], "limit {limit_bytes}");
            let moved = Reject { line: 24, ..reject(4) };
            assert_eq!(of("b"), [reject(9), reject(10), moved], "limit {limit_bytes}");
            assert!(of("c").is_empty());
            let (state, none) = (rejects.state(), limit_bytes == u64::MAX);
            assert_eq!(state.file.is_none(), none, "limit {limit_bytes}");
            assert!(state.held_bytes <= limit_bytes);
        }
    }
}
