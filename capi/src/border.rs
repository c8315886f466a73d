//! The border: errors, texts, arrays and memory as C has them.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use tern::{Error, Result};

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Does what a function of the header does; where it fails or panics, keeps why and gives `failed`.
pub(crate) fn guarded<T>(failed: T, work: impl FnOnce() -> Result<T>) -> T {
    let what = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => return done,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("internal error: {}", said(&*panic)),
    };
    // A thread that is ending has no place for it.
    let _ =
        LAST.try_with(|last| *last.borrow_mut() = CString::new(what.replace('\0', " ")).unwrap_or_default());
    failed
}

/// The words of a panic.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

/// What a caller did wrong.
pub(crate) fn wrong<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Input(what.into()))
}

/// Why the last call of this thread that failed did: one line, empty before the first. It stays until the next call that fails on
/// this thread.
#[unsafe(no_mangle)]
pub extern "C" fn tern_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// The version of this library: `1.2.3`.
#[unsafe(no_mangle)]
pub extern "C" fn tern_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version holds no NUL"),
        };
    VERSION.as_ptr()
}

/// # Safety
/// Null, or a text that ends with NUL and outlives `'a`.
pub(crate) unsafe fn text<'a>(name: &str, pointer: *const c_char) -> Result<&'a str> {
    if pointer.is_null() {
        return wrong(format!("{name}: expected a text, found NULL"));
    }
    // SAFETY: it is a text, by this function's own condition.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes.to_str().or_else(|_| wrong(format!("{name}: expected UTF-8")))
}

/// # Safety
/// Null, or an object that lives for `'a` and that nobody has alone.
pub(crate) unsafe fn object<'a, T>(name: &str, pointer: *const T) -> Result<&'a T> {
    if !pointer.is_aligned() {
        return wrong(format!("{name}: this is no pointer to one"));
    }
    // SAFETY: it is null or an object, by this function's own condition.
    unsafe { pointer.as_ref() }.ok_or_else(|| Error::Input(format!("{name}: expected one, found NULL")))
}

/// # Safety
/// Null, or an array of `count` items that lives for `'a` and that nobody changes meanwhile.
pub(crate) unsafe fn array<'a, T>(name: &str, pointer: *const T, count: usize) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() || !pointer.is_aligned() {
        return wrong(format!("{name}: expected an array of {count}, found no pointer to one"));
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return wrong(format!("{name}: no memory holds {count} of them"));
    }
    // SAFETY: it is an array of so many, by this function's own condition.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// Where a function tells how many items it gave. It is 0 until they are given.
pub(crate) struct Count(*mut usize);

impl Count {
    /// # Safety
    /// Null, or a place for a number that lives as long as this does.
    pub(crate) unsafe fn new(pointer: *mut usize) -> Result<Self> {
        if pointer.is_null() || !pointer.is_aligned() {
            return wrong("count: expected a place for a number, found no pointer to one");
        }
        // SAFETY: it is such a place, by this function's own condition.
        unsafe { pointer.write(0) };
        Ok(Self(pointer))
    }

    /// Tells another number.
    pub(crate) fn set(&self, count: usize) {
        // SAFETY: the place lives, as `new` was told.
        unsafe { self.0.write(count) };
    }
}

/// In front of what is given: the bytes of both, so that giving back needs no count. As wide as anything has to be aligned.
const FRONT: usize = 16;

/// Memory of the caller's with a copy of these items; behind them stands a zero, which ends a text.
pub(crate) fn give<T: Copy>(items: &[T], count: &Count) -> *mut T {
    const { assert!(align_of::<T>() <= FRONT) };
    let layout =
        Layout::from_size_align(FRONT + size_of_val(items) + 1, FRONT).expect("it is in memory already");
    // SAFETY: the layout has a size; the front and the items lie within it, one after the other, and what is written is its own.
    unsafe {
        let start = alloc(layout);
        if start.is_null() {
            handle_alloc_error(layout);
        }
        start.cast::<usize>().write(layout.size());
        let place = start.add(FRONT);
        ptr::copy_nonoverlapping(items.as_ptr().cast(), place, size_of_val(items));
        place.add(size_of_val(items)).write(0);
        count.set(items.len());
        place.cast()
    }
}

/// Lends a text with a NUL behind it.
pub(crate) fn lend<T>(text: &str, take: impl FnOnce(*const c_char, usize) -> T) -> T {
    let bytes = [text.as_bytes(), &[0]].concat();
    take(bytes.as_ptr().cast(), text.len())
}

/// Gives back ids, a text or vectors that a function of this header returned. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tern_free(memory: *mut c_void) {
    if memory.is_null() {
        return;
    }
    // SAFETY: it came from `give`, by the rules of the header, which wrote the size of the whole before it.
    unsafe {
        let start = memory.cast::<u8>().sub(FRONT);
        let size = start.cast::<usize>().read();
        dealloc(start, Layout::from_size_align_unchecked(size, FRONT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        // SAFETY: the text of this thread, which fails at nothing meanwhile.
        unsafe { CStr::from_ptr(tern_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_ends_at_the_border_and_is_told_to_its_thread_alone() {
        assert_eq!(last(), "");
        assert_eq!(guarded(-1, || panic!("seven {}", 7)), -1);
        assert_eq!(last(), "internal error: seven 7");
        assert_eq!(guarded(-1, || wrong("a\0b")), -1);
        assert_eq!(last(), "a b");
        assert_eq!(guarded(-1, || Ok(3)), 3);
        assert_eq!(last(), "a b", "until the next call that fails");
        std::thread::spawn(|| assert_eq!(last(), "")).join().unwrap();
    }

    #[test]
    fn what_is_given_carries_its_size_and_ends_with_a_zero() {
        for text in ["", "a", "sixteen letters ", &"long".repeat(1000)] {
            let mut count = 9;
            // SAFETY: a place for a number, and memory that was just given.
            unsafe {
                let place = give(text.as_bytes(), &Count::new(&raw mut count).unwrap());
                assert_eq!((count, place as usize % FRONT), (text.len(), 0));
                assert_eq!(CStr::from_ptr(place.cast()).to_str().unwrap(), text);
                tern_free(place.cast());
                tern_free(ptr::null_mut());
            }
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        let numbers = [1_u32, 2];
        let odd = numbers.as_ptr().cast::<u8>().wrapping_add(1).cast::<u32>();
        // SAFETY: each is refused before it is read, or an array of so many.
        unsafe {
            assert!(array("ids", ptr::null::<u32>(), 1).is_err() && array("ids", odd, 1).is_err());
            assert!(array("ids", numbers.as_ptr(), usize::MAX / 2).is_err());
            assert_eq!(array("ids", ptr::null::<u32>(), 0).unwrap(), [0_u32; 0]);
            assert_eq!(array("ids", numbers.as_ptr(), 2).unwrap(), numbers);
            assert!(text("text", ptr::null()).is_err() && text("text", c"\xff".as_ptr()).is_err());
            assert!(Count::new(ptr::null_mut()).is_err() && object("model", odd).is_err());
        }
    }
}
