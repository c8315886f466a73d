//! The assembly, run by the CPU or by the emulator of this folder, against tiles in plain Rust.

use super::{Amx, all_sums, emulator};
use crate::random::Random;
use crate::tiles::{Line, SIDE, Software, Sums, Tiles};

/// Memory whose end is that of the pages one may read, so that a byte too many ends the test.
struct AtTheEnd {
    start: *mut u8,
    mapped: usize,
    len: usize,
}

impl AtTheEnd {
    fn new(len: usize) -> Self {
        const PAGE: usize = 4096;
        let mapped = len.next_multiple_of(PAGE) + PAGE;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a mapping of its own, whose last page is made inaccessible.
        unsafe {
            let start = libc::mmap(std::ptr::null_mut(), mapped, access, kind, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(start.add(mapped - PAGE), PAGE, libc::PROT_NONE), 0);
            Self { start: start.cast(), mapped, len }
        }
    }

    /// Its bytes as values of some type, which are plain numbers here.
    fn values<T>(&mut self) -> &mut [T] {
        // SAFETY: the bytes before the last page are ours and no others use them; all types here are valid whatever their
        // bytes, and the end of a page is aligned for each.
        unsafe {
            let first = self.start.add(self.mapped - 4096 - self.len);
            std::slice::from_raw_parts_mut(first.cast(), self.len / size_of::<T>())
        }
    }
}

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made.
        unsafe { libc::munmap(self.start.cast(), self.mapped) };
    }
}

/// Bytes at the ends of their range, or all of them.
fn byte(random: &mut Random, extreme: bool) -> u8 {
    let bits = random.bits();
    if extreme { [0x80, 0x7f, 0xff, 0][(bits % 4) as usize] } else { bits as u8 }
}

#[test]
fn assembly_equals_plain_rust_for_every_height_and_reads_nothing_beyond() {
    let amx = Amx::or_emulated();
    let mut random = Random(1);
    for height in 1..=SIDE {
        for (steps, gap, extreme) in [(2, 0, true), (3, 0, false), (5, 13, false), (10, 640, true)] {
            let mut lines = AtTheEnd::new(steps * SIDE * size_of::<Line>());
            lines.values::<u8>().fill_with(|| byte(&mut random, extreme));
            let lines = &*lines.values::<Line>();
            let stride = 4 * lines.len() + gap;
            let mut inputs = AtTheEnd::new((2 * height - 1) * stride + 4 * lines.len());
            inputs.values::<u8>().fill_with(|| byte(&mut random, extreme));
            let inputs = &*inputs.values::<i8>();
            let expected = all_sums(Software::new(height), inputs, stride, lines);
            let found = all_sums(amx.configure(height), inputs, stride, lines);
            assert!(found == expected, "{height} rows, {steps} steps, {stride} bytes apart");
            // The same to memory that ends with the sums.
            let mut sums = AtTheEnd::new(2 * size_of::<[Sums; 2]>());
            let sums: &mut [[Sums; 2]; 2] = sums.values().try_into().unwrap();
            let mut plain = [[Sums::ZERO; 2]; 2];
            let pair = [inputs, &inputs[height * stride..]];
            Software::new(height).multiply(pair, stride, lines, &mut plain, false);
            amx.configure(height).multiply(pair, stride, lines, sums, false);
            assert!(*sums == plain);
        }
    }
}

#[test]
fn registers_are_released_and_the_check_at_first_use_passes() {
    let amx = Amx::or_emulated();
    assert!(amx.is_right());
    assert!(emulator::is_released());
    if Amx::new().is_none() {
        // 3 heights, each twice: 3 steps of 4 products and 2 steps of 2.
        let before = emulator::products();
        assert!(amx.is_right());
        assert_eq!(emulator::products() - before, 3 * 2 * (3 * 4 + 2 * 2), "the assembly did not run");
        let tiles = amx.configure(3);
        assert!(!emulator::is_released());
        drop(tiles);
        assert!(emulator::is_released());
    }
}

#[test]
#[should_panic(expected = "inputs of a tile")]
fn inputs_that_end_too_early_are_refused() {
    let lines = [[[0; 64]; 2]; SIDE];
    let inputs = [0i8; 2 * 33 + 63];
    Amx::or_emulated().configure(3).multiply([&inputs], 33, &lines, &mut [[Sums::ZERO; 2]], true);
}
