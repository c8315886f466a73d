//! Tern's own `H8`: an output head as it is used in memory (11 bits a weight), so that a model is mapped and its head is not
//! made anew at every start. Its parts, each filled up with zeros to a multiple of 64 bytes:
//!
//! ```text
//! codes    i8   (rows, columns filled up to a multiple of 32): weight = code * scale of the row
//! screen        3 bits of every code in the order of `kernels/src/head/screen.rs`
//! scales   f32  (rows)
//! norms    f32  (rows): of the codes that the screen stands for
//! ```
//!
//! Its type number is 0x54520008. An embedding can be one too, and then its rows are code times scale.

use super::{Codec, Encoding, Read, Write};
use crate::tensor::Tensor;
use tern_kernels::{Cpu, OutputHead, Pool};

pub(super) static H8: Codec =
    Codec { name: "H8", gguf: Some(0x5452_0008), len, read: Read::Head, write: Write::No };

fn len(rows: u64, cols: u64) -> Result<u64, String> {
    let len = || OutputHead::file_len(usize::try_from(rows).ok()?, usize::try_from(cols).ok()?);
    len().map(|len| len as u64).ok_or_else(|| format!("expected the sizes of a head, found {rows} x {cols}"))
}

/// The head that a tensor holds, used where it lies; `None` for other encodings.
pub(crate) fn mapped(tensor: &Tensor, cpu: Cpu, pool: &Pool) -> Option<Result<OutputHead, String>> {
    // A factor changes every scale, and no norm.
    (tensor.encoding == Encoding::H8 && tensor.factor == 1.0)
        .then(|| OutputHead::from_file(cpu, pool, tensor.rows(), tensor.cols(), &tensor.bytes))
}
