//! The bytes of the tensors, streamed: a few rows are in memory at a time.

use super::Measured;
use crate::plan::{Item, Kind, Order};
use std::io::Write as _;
use std::path::Path;
use tern::codec::{self, EncodeError, Source, Trits};
use tern::file::File;
use tern::file::write::Out;
use tern::{Encoding, Error, Result, Tensor};
use tern_kernels::{Pool, Scales};

/// Counts the bytes read, and tells from time to time.
pub(super) struct Meter<'a> {
    done: u64,
    told: u64,
    total: u64,
    /// Bytes of the tensor at hand that its map still holds in memory.
    held: usize,
    progress: &'a mut dyn FnMut(u64, u64),
}

/// Bytes between two reports.
const STEP: u64 = 4 << 20;

/// Bytes of a mapped tensor that are read before the map may forget them: the input as a whole does not fit memory.
const HELD: usize = 16 << 20;

impl<'a> Meter<'a> {
    pub(super) fn new(items: &[Item], progress: &'a mut dyn FnMut(u64, u64)) -> Self {
        // What becomes trits is read twice.
        let read = |item: &Item| item.tensor.bytes.len() as u64 * if item.is_float() { 2 } else { 1 };
        let total = items.iter().filter(|item| !matches!(item.kind, Kind::Scale)).map(read).sum();
        progress(0, total);
        Self { done: 0, told: 0, total, held: 0, progress }
    }

    /// So many more bytes of a tensor were read.
    pub(super) fn add(&mut self, tensor: &Tensor, bytes: usize) {
        self.held += bytes;
        if self.held >= HELD {
            tensor.bytes.release();
            self.held = 0;
        }
        self.done += bytes as u64;
        if self.done >= self.total || self.done - self.told >= STEP {
            self.told = self.done;
            (self.progress)(self.done.min(self.total), self.total);
        }
    }
}

/// Writes one tensor to `out`, which is `path`.
pub(super) fn write(
    file: &File,
    path: &Path,
    measured: &Measured,
    out: &mut Out,
    meter: &mut Meter,
) -> Result<()> {
    let Measured { item, trits, .. } = measured;
    let done = match item.kind {
        Kind::Floats(Encoding::H8) if item.tensor.encoding != Encoding::H8 => {
            meter.add(item.tensor, item.tensor.bytes.len());
            codec::encode_head(item.tensor, &Pool::new(1), out)
        }
        Kind::Floats(Encoding::H8) => out.write_all(&item.tensor.bytes).map_err(EncodeError::Io),
        Kind::Floats(encoding) => floats(item, encoding, out, meter),
        Kind::Scale => {
            let scale = measured.scale.expect("a scale that is a tensor was measured as the only one");
            out.write_all(&scale.to_le_bytes()).map_err(EncodeError::Io)
        }
        Kind::Trits(encoding) => match trits {
            Some(trits) => self::trits(item, trits, encoding, out, meter),
            None => Trits::open(item.tensor)
                .map_err(EncodeError::Tensor)
                .and_then(|trits| self::trits(item, &trits, encoding, out, meter)),
        },
    };
    item.tensor.bytes.release();
    done.map_err(|e| match e {
        EncodeError::Tensor(what) => Error::tensor(&file.path, &item.tensor.name, what),
        EncodeError::Io(e) => Error::io(path, e),
    })
}

fn trits(
    item: &Item,
    trits: &Trits,
    encoding: Encoding,
    out: &mut Out,
    meter: &mut Meter,
) -> Result<(), EncodeError> {
    let (rows, cols) = (item.tensor.rows(), item.tensor.cols());
    let row_bytes = item.tensor.bytes.len() / rows;
    let mut row = |row: usize, out: &mut [i8]| {
        meter.add(item.tensor, row_bytes);
        trits.row(item.order.source(row), out)
    };
    let ordered = match trits.scales() {
        Scales::Groups { size, values } if item.order != Order::Same => {
            let in_row = cols.div_ceil(*size);
            let of = |row: usize| values[item.order.source(row) * in_row..][..in_row].iter().copied();
            Some(Scales::Groups { size: *size, values: (0..rows).flat_map(of).collect() })
        }
        _ => None,
    };
    let scales = ordered.as_ref().unwrap_or(trits.scales());
    codec::encode_ternary(encoding, Source { rows, cols, scales, row: &mut row }, out)
}

fn floats(item: &Item, encoding: Encoding, out: &mut Out, meter: &mut Meter) -> Result<(), EncodeError> {
    let tensor = item.tensor;
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let row_bytes = tensor.bytes.len() / rows;
    let mut row = vec![0.0; cols];
    let mut bytes = Vec::new();
    for r in 0..rows {
        meter.add(tensor, row_bytes);
        if encoding == tensor.encoding && tensor.factor == 1.0 && !item.less_one {
            out.write_all(&tensor.bytes[r * row_bytes..][..row_bytes])?;
            continue;
        }
        codec::floats(tensor, r, &mut row)?;
        if item.less_one {
            row.iter_mut().for_each(|value| *value += 1.0);
        }
        // Beyond this f16, and the f16 scale of a Q8_0 block, round to infinity.
        let limit = match encoding {
            Encoding::F16 => 65520.0,
            Encoding::Q8_0 => 65520.0 * 127.0,
            _ => f32::INFINITY,
        };
        if let Some(value) = row.iter().find(|value| value.abs() >= limit || value.is_nan()) {
            return Err(format!("row {r} holds {value}, which {encoding} cannot; choose keep").into());
        }
        bytes.clear();
        codec::encode_floats(encoding, &row, &mut bytes)?;
        out.write_all(&bytes)?;
    }
    Ok(())
}
