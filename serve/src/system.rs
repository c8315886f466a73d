//! What the system says of memory.

/// Bytes for requests unless somebody says: 1 GiB, or a quarter of what is free.
pub(crate) fn for_requests() -> usize {
    const MOST: u64 = 1 << 30;
    usize::try_from(tern::free_memory().map_or(MOST, |free| MOST.min(free / 4))).unwrap_or(usize::MAX)
}

/// Bytes of memory that this process holds, where the system tells.
pub(crate) fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
