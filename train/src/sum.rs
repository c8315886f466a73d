//! A checksum of what is written and read: of checkpoints, and of what machines send each other.

use std::io::{self, Read, Write};

use crate::random::scramble;

/// Adds up what passes through it. Every word is scrambled with the sum before it, so that order counts.
#[derive(Debug)]
pub(crate) struct Summing<W> {
    pub(crate) inner: W,
    pub(crate) sum: u64,
}

/// Numbers that pass at a time.
const PIECE: usize = 1 << 16;

impl<W> Summing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, sum: 0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for &word in words {
            self.sum =
                (self.sum ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        for &byte in rest {
            self.sum = scramble(self.sum ^ u64::from(byte));
        }
    }
}

impl<W: Write> Summing<W> {
    pub(crate) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.add(bytes);
        self.inner.write_all(bytes)
    }

    pub(crate) fn put_floats(&mut self, values: &[f32]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(4 * values.len().min(PIECE));
        for piece in values.chunks(PIECE) {
            bytes.clear();
            bytes.extend(piece.iter().flat_map(|value| value.to_le_bytes()));
            self.put(&bytes)?;
        }
        Ok(())
    }
}

impl<R: Read> Summing<R> {
    pub(crate) fn take(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.add(bytes);
        Ok(())
    }

    pub(crate) fn take_floats(&mut self, values: &mut [f32]) -> io::Result<()> {
        let mut bytes = vec![0; 4 * values.len().min(PIECE)];
        for piece in values.chunks_mut(PIECE) {
            let bytes = &mut bytes[..4 * piece.len()];
            self.take(bytes)?;
            for (value, &bytes) in piece.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(bytes);
            }
        }
        Ok(())
    }
}
