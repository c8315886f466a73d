//! Freed memory back to the system.

/// Gives memory that was freed and that the allocator keeps back to the system, where it can be told to: glibc's keeps
/// what many small pieces took, in an arena for every thread.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `malloc_trim` of glibc has this signature and may be called at any time by any thread; it takes the
        // allocator's own locks and touches only memory that is free.
        unsafe extern "C" {
            safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        let _ = malloc_trim(0);
    }
}

/// Lets the allocator, where it is glibc's, take each large piece of memory from the system and give it back when it is freed.
/// By itself it raises that size to the largest piece that was ever freed, up to 32 MiB, and keeps what is smaller.
pub fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `mallopt` of glibc has this signature; it takes the allocator's lock and sets a number.
        unsafe extern "C" {
            safe fn mallopt(what: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
        }
        /// Bytes from which a piece is the system's.
        const MMAP_THRESHOLD: std::ffi::c_int = -3;
        /// Free bytes at the end of a heap from which it is made smaller.
        const TRIM_THRESHOLD: std::ffi::c_int = -1;
        let _ = (mallopt(MMAP_THRESHOLD, 1 << 20), mallopt(TRIM_THRESHOLD, 4 << 20));
    }
}
