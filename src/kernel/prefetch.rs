//! Prefetching of memory.
//!
//! In: a place needed some hundred instructions later. Out: none; it is loaded into the cache in
//! the background.
//! Invariant: results do not depend on it.

/// Prefetches the target, on processors that support it.
#[inline]
#[expect(unsafe_code, reason = "the instruction takes a pointer")]
pub fn prefetch<T>(target: Option<&T>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(target) = target {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the pointer comes from a live reference and is not dereferenced. A plain load
        // would also work but could stall the instructions after it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}
