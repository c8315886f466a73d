//! One array, several threads, each with a part of its own.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice of which several threads hold different parts at once.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    lives: PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out `&mut [T]` to other threads, which is sound for `T: Send` as long as the parts do not overlap;
// that is the obligation of `slice`.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Takes the slice for its parts to be handed out.
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self { start: data.as_mut_ptr(), len: data.len(), lives: PhantomData }
    }

    /// One part.
    ///
    /// # Safety
    /// * While the returned slice lives, no other part that overlaps `range` may be taken.
    #[allow(clippy::mut_from_ref)] // handing out distinct parts through a shared reference is its purpose
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: in bounds by the assertion, unique by the caller's promise, alive by `'a`.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
