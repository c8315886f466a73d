//! The fields of a GGUF header that is right, for mutants to break. Knows the format on its own, so that a mistake in
//! the reader is not repeated here.

use std::ops::Range;

/// Every number and string of a valid header, in order.
pub(crate) fn fields(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut walk = Walk { bytes, at: 0, fields: Vec::new() };
    walk.skip(4);
    walk.skip(4);
    let (tensors, pairs) = (walk.number(8), walk.number(8));
    for _ in 0..pairs {
        walk.string();
        let kind = walk.number(4);
        walk.value(kind);
    }
    for _ in 0..tensors {
        walk.string();
        for _ in 0..walk.number(4) {
            walk.skip(8);
        }
        walk.skip(4);
        walk.skip(8);
    }
    walk.fields
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    fields: Vec<Range<usize>>,
}

impl Walk<'_> {
    fn skip(&mut self, length: usize) {
        self.fields.push(self.at..self.at + length);
        self.at += length;
    }

    fn number(&mut self, length: usize) -> u64 {
        let mut number = [0; 8];
        number[..length].copy_from_slice(&self.bytes[self.at..][..length]);
        self.skip(length);
        u64::from_le_bytes(number)
    }

    fn string(&mut self) {
        let length = self.number(8);
        if length > 0 {
            self.skip(length as usize);
        }
    }

    fn value(&mut self, kind: u64) {
        match kind {
            8 => self.string(),
            9 => {
                let (kind, count) = (self.number(4), self.number(8));
                for _ in 0..count {
                    self.value(kind);
                }
            }
            0 | 1 | 7 => self.skip(1),
            2 | 3 => self.skip(2),
            4..=6 => self.skip(4),
            10..=12 => self.skip(8),
            other => panic!("a value type of {other}"),
        }
    }
}
