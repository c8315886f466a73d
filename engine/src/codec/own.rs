//! Tern's own `I2` (2 bits a weight) and `T5` (1.6 bits): the blocks of [`Packing`] as they are used in memory, so that
//! a model is mapped and not repacked, then a tail:
//!
//! ```text
//! blocks   packing.blocks_len(rows, cols), a multiple of 64
//! size     u32      columns that share a scale; 0: one scale for the matrix
//! count    u32      scales
//! zeros    56 bytes
//! scales   f32      row-major: rows * ceil(cols / size)
//! zeros    to a multiple of 64
//! ```
//!
//! Their type numbers, 0x54520002 and 0x54520005, are far from everybody's. `general.alignment` is 64 in such files.

use super::{Codec, EncodeError, Encoding, Read, Source, Write, check_scale};
use crate::tensor::Tensor;
use std::io;
use std::ops::Range;
use tern_kernels::{Packing, Scales, Ternary};

const ALIGNMENT: usize = 64;
/// Rows that are packed together.
const GROUP: usize = 16;

pub(super) static I2: Codec = Codec {
    name: "I2",
    gguf: Some(0x5452_0002),
    len: |rows, cols| len(Packing::I2, rows, cols, 1),
    read: Read::Trits { scales, row },
    write: Write::Trits(|source, out| encode(Packing::I2, source, out)),
};

pub(super) static T5: Codec = Codec {
    name: "T5",
    gguf: Some(0x5452_0005),
    len: |rows, cols| len(Packing::T5, rows, cols, 1),
    read: Read::Trits { scales, row },
    write: Write::Trits(|source, out| encode(Packing::T5, source, out)),
};

pub(super) fn packing(encoding: Encoding) -> Option<Packing> {
    match encoding {
        Encoding::I2 => Some(Packing::I2),
        Encoding::T5 => Some(Packing::T5),
        _ => None,
    }
}

fn blocks_len(packing: Packing, rows: u64, cols: u64) -> Result<usize, String> {
    let count = |rows, cols| packing.blocks_len(usize::try_from(rows).ok()?, usize::try_from(cols).ok()?);
    count(rows, cols)
        .ok_or_else(|| format!("expected a size that this machine can count, found {rows} x {cols}"))
}

/// The bytes of a tensor with so many scales.
pub(super) fn len(packing: Packing, rows: u64, cols: u64, scales: u64) -> Result<u64, String> {
    let tail = scales.checked_mul(4).and_then(|tail| tail.checked_next_multiple_of(ALIGNMENT as u64));
    let tail = tail.and_then(|tail| tail.checked_add(ALIGNMENT as u64));
    let all = tail.and_then(|tail| tail.checked_add(blocks_len(packing, rows, cols).ok()? as u64));
    all.ok_or_else(|| format!("expected a size in 64 bits, found {rows} x {cols} with {scales} scales"))
}

/// The columns that share a scale, and the bytes of the scales and all behind them.
struct Tail<'a> {
    size: usize,
    count: usize,
    scales: &'a [u8],
}

impl<'a> Tail<'a> {
    fn of(packing: Packing, rows: usize, cols: usize, bytes: &'a [u8]) -> Result<Self, String> {
        let blocks = blocks_len(packing, rows as u64, cols as u64)?;
        let tail = bytes.get(blocks..).and_then(<[u8]>::split_first_chunk::<ALIGNMENT>);
        let Some((head, scales)) = tail else {
            return Err(format!(
                "expected {blocks} bytes of blocks and a tail of 64, found {} bytes",
                bytes.len()
            ));
        };
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (size, count) = (word(0), word(4));
        let expected = if size == 0 { Some(1) } else { rows.checked_mul(cols.div_ceil(size)) };
        if expected != Some(count) {
            return Err(format!(
                "expected a scale for every {size} columns of {rows} x {cols}, found {count} scales"
            ));
        }
        Ok(Self { size, count, scales })
    }
}

/// The bytes of a tensor that has `room` for them; how many scales it has stands in its tail.
pub(super) fn measure(packing: Packing, rows: u64, cols: u64, room: &[u8]) -> Result<u64, String> {
    blocks_len(packing, rows, cols)?; // so both fit this machine
    let tail = Tail::of(packing, rows as usize, cols as usize, room)?;
    len(packing, rows, cols, tail.count as u64)
}

fn scales(tensor: &Tensor, rows: Range<usize>) -> Result<Scales, String> {
    let packing = packing(tensor.encoding).expect("only I2 and T5 come here");
    let cols = tensor.cols();
    let Tail { size, count, scales } = Tail::of(packing, tensor.rows(), cols, &tensor.bytes)?;
    let values = scales.as_chunks().0.get(..count).ok_or("expected all scales in the tail, found the end")?;
    let read = |&bytes: &[u8; 4]| check_scale(check_scale(f32::from_le_bytes(bytes))? * tensor.factor);
    if size == 0 {
        return Ok(Scales::One(read(&values[0])?));
    }
    let per_row = cols.div_ceil(size);
    let values = values[rows.start * per_row..rows.end * per_row].iter().map(read);
    let scales = Scales::Groups { size, values: values.collect::<Result<_, _>>()? };
    scales.check(rows.len(), cols)?;
    Ok(scales)
}

fn row(tensor: &Tensor, row: usize, out: &mut [i8]) -> Result<(), String> {
    let packing = packing(tensor.encoding).expect("only I2 and T5 come here");
    let length = packing.group_len(out.len());
    let group = &tensor.bytes[row / GROUP * length..][..length];
    let lane = row % GROUP;
    // The bytes of this row: four of every block.
    let bytes: Vec<u8> =
        group.as_chunks::<64>().0.iter().flat_map(|block| block[4 * lane..][..4].iter().copied()).collect();
    if let Some(at) = packing.invalid_byte(&bytes) {
        return Err(format!("expected codes of 0, 1 or 2, found byte {} in row {row}", bytes[at]));
    }
    packing.unpack_row(group, lane, out);
    Ok(())
}

/// See [`super::mapped`].
pub(super) fn mapped(packing: Packing, tensor: &Tensor) -> Result<Ternary, String> {
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let blocks = blocks_len(packing, rows as u64, cols as u64)?;
    let blocks = tensor.bytes.slice(0..blocks).ok_or("expected all blocks, found the end")?;
    Ternary::from_blocks(packing, rows, cols, scales(tensor, 0..rows)?, blocks)
}

fn encode(packing: Packing, source: &mut Source, out: &mut dyn io::Write) -> Result<(), EncodeError> {
    source.scales.check(source.rows, source.cols)?;
    let mut trits = vec![0; GROUP * source.cols];
    let mut bytes = vec![0; packing.group_len(source.cols)];
    for first in (0..source.rows).step_by(GROUP) {
        let count = GROUP.min(source.rows - first);
        for (nth, trits) in trits.chunks_exact_mut(source.cols).take(count).enumerate() {
            (source.row)(first + nth, trits)?;
        }
        packing.pack_group(&trits[..count * source.cols], source.cols, &mut bytes);
        out.write_all(&bytes)?;
    }
    let (size, values) = match source.scales {
        Scales::One(scale) => (0, std::slice::from_ref(scale)),
        Scales::Groups { size, values } => (*size, &values[..]),
    };
    let word = |number: usize| {
        u32::try_from(number).map_err(|_| format!("the tail counts scales in 32 bits, found {number}"))
    };
    let mut tail = Vec::new();
    tail.extend_from_slice(&word(size)?.to_le_bytes());
    tail.extend_from_slice(&word(values.len())?.to_le_bytes());
    tail.resize(ALIGNMENT, 0);
    tail.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    tail.resize(tail.len().next_multiple_of(ALIGNMENT), 0);
    Ok(out.write_all(&tail)?)
}
