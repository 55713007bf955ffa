//! What the system tells of this process's memory.
//!
//! In: `/proc`, where there is one. Out: bytes.
//! Invariant: a figure that the system does not tell is none, or nothing.

/// The most memory this process has held, where the system tells.
pub fn peak_memory_bytes() -> u64 {
    proc_bytes("/proc/self/status", "VmHWM:").unwrap_or(0)
}

/// Lets the peak begin anew from what is held now, where the system can.
pub fn forget_peak_memory() {
    // A peak that is not forgotten is too high, which is no reason to stop.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// A figure that the system tells in kB, as bytes.
pub fn proc_bytes(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let figure = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = figure.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}
