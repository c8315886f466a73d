//! Freed memory back to the system.

/// Gives memory that was freed and that the allocator keeps back to the system, where it can be told to: glibc's keeps
/// what many small pieces took, in an arena for every thread.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `malloc_trim` of glibc has this signature and may be called at any time by any thread; it takes the
        // allocator's own locks and touches only memory that nobody owns.
        unsafe extern "C" {
            safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        let _ = malloc_trim(0);
    }
}
