//! Memory for large arrays: zeroed when first touched, whole cache lines, huge pages where the system gives them.

use std::ops::{Deref, DerefMut};

use crate::bytes::{Bytes, Memory};

/// A cache line, and the widest register.
const LINE: usize = 64;
/// A huge page of x86 and ARM. Buffers of several are laid on their borders.
const HUGE: usize = 2 << 20;

/// A fixed run of bytes, zero at first.
pub struct Buffer {
    /// Longer than needed, so that an aligned part of the right length lies inside. The allocator takes zeroed memory of
    /// this size from the system untouched, so whoever writes a page first, brings it in.
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let align = if len >= 2 * HUGE { HUGE } else { LINE };
        let memory = vec![0; len + align - 1];
        let start = memory.as_ptr().align_offset(align);
        let buffer = Self { memory, start, len };
        if align == HUGE {
            ask_for_huge_pages(&buffer);
        }
        buffer
    }
}

#[cfg(target_os = "linux")]
fn ask_for_huge_pages(bytes: &[u8]) {
    unsafe extern "C" {
        fn madvise(start: *const u8, len: usize, advice: i32) -> i32;
    }
    const MADV_HUGEPAGE: i32 = 14;
    // SAFETY: the advice changes how the system backs these pages, not what is in them; the range is one live buffer of
    // ours. Where the system cannot (the answer is not looked at), small pages serve.
    unsafe { madvise(bytes.as_ptr(), bytes.len(), MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_: &[u8]) {}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Memory for Buffer {}

impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Self {
        let range = 0..buffer.len();
        Bytes::new(std::sync::Arc::new(buffer), range).expect("the range is the whole buffer")
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zero_and_as_long_as_asked() {
        for (len, align) in [(0, 1), (1, LINE), (1000, LINE), (2 * HUGE, HUGE), (2 * HUGE + 1, HUGE)] {
            let mut buffer = Buffer::zeroed(len);
            assert_eq!((buffer.len(), buffer.as_ptr().addr() % align), (len, 0));
            assert!(buffer.iter().all(|&byte| byte == 0));
            buffer.fill(1);
        }
    }
}
