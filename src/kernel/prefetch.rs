//! Asking for memory ahead of its use.
//!
//! In: a place that will be needed some hundred instructions later. Out: nothing; it comes into the
//! cache meanwhile. Invariant: no value depends on it.

/// Asks for what is pointed to from memory, where the processor can be asked.
#[inline]
pub fn prefetch<T>(target: Option<&T>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(target) = target {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the pointer is that of a living value, and is not followed. A load would do as
        // well, but it would hold up what comes behind it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}
