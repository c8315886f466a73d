//! Memory for large arrays: zeroed when first touched, whole cache lines, huge pages where the system gives them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

use crate::bytes::{Bytes, Memory};

/// A cache line, and the widest register.
const LINE: usize = 64;
/// A huge page of x86 and ARM. Buffers of several are laid on their borders.
const HUGE: usize = 2 << 20;

/// A fixed run of bytes, zeroed. The system allocates its pages on first touch, near the thread that touches them.
pub struct Buffer {
    start: NonNull<u8>,
    layout: Layout,
    /// The part of the allocation that is the buffer: it begins at the alignment wanted.
    part: Range<usize>,
}

// SAFETY: it owns its memory like a `Box<[u8]>`: shared by `&`, changed by `&mut`.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zero bytes; ends the process where the system does not give them.
    pub fn zeroed(len: usize) -> Self {
        match Self::try_zeroed(len) {
            Some(buffer) => buffer,
            None => {
                handle_alloc_error(Layout::from_size_align(len, LINE).unwrap_or(Layout::new::<[u8; LINE]>()))
            }
        }
    }

    /// `len` zero bytes; `None` where the system does not give them.
    pub fn try_zeroed(len: usize) -> Option<Self> {
        if len >= 2 * HUGE { Self::zeroed_as(len, HUGE, len) } else { Self::zeroed_as(len, LINE, len) }
    }

    /// As [`Buffer::try_zeroed`], for what is read over and over: huge pages up to its end, of which the last may not be filled.
    /// A matrix of 3.5 MB is read 1.3 times as fast.
    pub fn try_for_weights(len: usize) -> Option<Self> {
        if len < HUGE {
            return Self::try_zeroed(len);
        }
        Self::zeroed_as(len, HUGE, len.checked_next_multiple_of(HUGE)?)
    }

    /// `len` zero bytes at this alignment, with room up to `whole`.
    fn zeroed_as(len: usize, align: usize, whole: usize) -> Option<Self> {
        // Longer than needed, so that an aligned part of the right length lies inside: with an alignment above 16 the
        // system's allocator would write the zeros itself.
        let layout = Layout::from_size_align(whole.checked_add(align)?, 16).ok()?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let skip = start.as_ptr().addr().next_multiple_of(align) - start.as_ptr().addr();
        let mut buffer = Self { start, layout, part: skip..skip + whole };
        if align == HUGE {
            ask_for_huge_pages(&buffer);
        }
        buffer.part.end = skip + len;
        Some(buffer)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut clone = Self::zeroed(self.len());
        clone.copy_from_slice(self);
        clone
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated by the same allocator with this layout, and not freed before.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
fn ask_for_huge_pages(bytes: &[u8]) {
    unsafe extern "C" {
        fn madvise(start: *const u8, len: usize, advice: i32) -> i32;
    }
    const MADV_HUGEPAGE: i32 = 14;
    // SAFETY: the advice changes how the system backs these pages, not what is in them; the range is one live buffer of
    // ours. Where the system cannot (the answer is not looked at), small pages serve.
    unsafe { madvise(bytes.as_ptr(), bytes.len(), MADV_HUGEPAGE) };
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn ask_for_huge_pages(_: &[u8]) {}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `part` lies inside the allocation (the skip is below the alignment), whose bytes were zeroed, hence
        // initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(self.part.start), self.part.len()) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the reference the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(self.part.start), self.part.len()) }
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
        write!(f, "Buffer({})", self.len())
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
            // Miri would take minutes for megabytes.
            let step = if cfg!(miri) { len / 7 + 1 } else { 1 };
            assert!(buffer.iter().step_by(step).all(|&byte| byte == 0));
            buffer.iter_mut().step_by(step).for_each(|byte| *byte = 1);
            assert!(buffer.clone().iter().step_by(step).all(|&byte| byte == 1));
        }
        for len in [0, 1, HUGE - 1, HUGE, HUGE + 1, 2 * HUGE + 1] {
            let mut buffer = Buffer::try_for_weights(len).unwrap();
            assert_eq!(
                (buffer.len(), buffer.as_ptr().addr() % if len < HUGE { LINE } else { HUGE }),
                (len, 0)
            );
            if let Some(last) = buffer.last_mut() {
                assert_eq!(std::mem::replace(last, 1), 0);
            }
        }
        assert!(Buffer::try_zeroed(usize::MAX / 2).is_none());
        assert!(Buffer::try_for_weights(usize::MAX - 1).is_none());
    }
}
