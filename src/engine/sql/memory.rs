//! The memory that the operators of one query share.
//!
//! In: what each operator asks for. Out: yes, or a no that makes it spill or fail.
//! Invariant: operators that can spill share three quarters equally; the last quarter is left to
//! those that cannot. DataFusion's own fair pool has no such rest: two sorts that have filled it
//! leave nothing to merge their spilled runs with, and the query fails or not by chance.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use datafusion::common::resources_datafusion_err;
use datafusion::error::Result as PlanResult;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size,
};

#[derive(Debug)]
pub struct SharedMemory {
    bytes: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// How many operators that can spill are at work, idle or not.
    spillers: usize,
    by_spillers: usize,
    by_others: usize,
}

impl SharedMemory {
    pub fn new(bytes: usize) -> SharedMemory {
        SharedMemory { bytes, used: Mutex::new(Used::default()) }
    }

    /// The part that operators which spill leave alone.
    pub fn kept_from_spillers(bytes: usize) -> usize {
        bytes / 4
    }

    /// Counters are right after every step, so that a thread that panicked left them right.
    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in all", human_readable_size(self.bytes))
    }
}

impl MemoryPool for SharedMemory {
    fn name(&self) -> &str {
        "shared"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.used().spillers += usize::from(consumer.can_spill());
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.used().spillers -= usize::from(consumer.can_spill());
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        let mut used = self.used();
        match reservation.consumer().can_spill() {
            true => used.by_spillers += additional,
            false => used.by_others += additional,
        }
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut used = self.used();
        match reservation.consumer().can_spill() {
            true => used.by_spillers -= shrink,
            false => used.by_others -= shrink,
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> PlanResult<()> {
        let mut used = self.used();
        let can_spill = reservation.consumer().can_spill();
        let free = if can_spill {
            let kept = used.by_others.max(SharedMemory::kept_from_spillers(self.bytes));
            let share = self.bytes.saturating_sub(kept) / used.spillers.max(1);
            share.saturating_sub(reservation.size())
        } else {
            self.bytes.saturating_sub(used.by_spillers + used.by_others)
        };
        if additional > free {
            return Err(resources_datafusion_err!(
                "{} has {}, wants {} more and can have {}; {self}",
                reservation.consumer().name(),
                human_readable_size(reservation.size()),
                human_readable_size(additional),
                human_readable_size(free)
            ));
        }
        match can_spill {
            true => used.by_spillers += additional,
            false => used.by_others += additional,
        }
        Ok(())
    }

    fn reserved(&self) -> usize {
        let used = self.used();
        used.by_spillers + used.by_others
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes)
    }
}
