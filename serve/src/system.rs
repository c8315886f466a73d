//! What the system says of memory.

/// Bytes for requests unless somebody says: 1 GiB, or a quarter of what is free.
pub(crate) fn for_requests() -> usize {
    const MOST: u64 = 1 << 30;
    usize::try_from(available().map_or(MOST, |free| MOST.min(free / 4))).unwrap_or(usize::MAX)
}

/// Bytes that can still be had: what the system says, and what a container is left.
pub(crate) fn available() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let free = line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)?;
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max").zip(number("/sys/fs/cgroup/memory.current"));
    Some(limit.map_or(free, |(max, current)| free.min(max.saturating_sub(current))))
}

/// Bytes of memory that this process holds, where the system tells.
pub(crate) fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
