//! One tensor as a file holds it: its sizes, its bytes and the name of what they mean. How bytes become numbers is
//! [`codec`](crate::codec)'s; where tensors lie is [`file`](mod@crate::file)'s.

use std::path::Path;

use tern_kernels::Bytes;

use crate::{Error, Result};

/// What the bytes of a tensor mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
    /// 32 signed bytes under one f16 scale.
    Q8_0,
    /// 32 nibbles under one f16 scale.
    Q4_0,
    /// 32 nibbles under an f16 scale and an f16 least value.
    Q4_1,
    /// 32 five-bit numbers under one f16 scale.
    Q5_0,
    /// 32 five-bit numbers under an f16 scale and an f16 least value.
    Q5_1,
    /// 256 two-bit numbers with 16 small scales and least values under two f16 scales.
    Q2K,
    /// 256 three-bit numbers with 16 small scales under one f16 scale.
    Q3K,
    /// 256 nibbles with 8 small scales and least values under two f16 scales.
    Q4K,
    /// 256 five-bit numbers with 8 small scales and least values under two f16 scales.
    Q5K,
    /// 256 six-bit numbers with 16 small scales under one f16 scale.
    Q6K,
    /// llama.cpp's bits, each -1 or 1, one f16 scale for each 128: ternary without zeros.
    Q1_0,
    /// llama.cpp's 2-bit trits, one f16 scale for each 64.
    Q2_0,
    /// PrismML's 2-bit trits, one f16 scale for each 128.
    Pq2_0,
    /// PrismML's base-3 trits, one f16 scale for each 128.
    Ptq1_0,
    /// Tencent's 5-bit codes of four trits of which one is 0, one f16 scale for each 256.
    Stq1_0,
    /// bitnet.cpp's 2-bit trits in blocks of 128, one scale: what published files hold.
    I2S,
    /// The same in blocks of 64, as bitnet.cpp's quantize tool writes on ARM; nothing in a file tells it from I2S.
    I2SArm,
    /// llama.cpp's base-3 trits, one f16 scale for each 256.
    Tq1_0,
    /// llama.cpp's 2-bit trits, one f16 scale for each 256.
    Tq2_0,
    /// ik_llama.cpp's base-3 trits, one f16 scale for each row.
    Iq1Bn,
    /// ik_llama.cpp's 2-bit trits, one f32 scale for each row.
    Iq2Bn,
    /// The same, four rows interleaved.
    Iq2BnR4,
    /// Hugging Face's `uint8` with four rows in a byte; the scale is another tensor.
    Packed,
    /// MLX's `uint32` with 16 weights in each; scales and biases are other tensors.
    Mlx2,
    /// Tern's 2-bit blocks, mapped as they are.
    I2,
    /// Tern's base-3 blocks, mapped as they are.
    T5,
    /// Tern's output head: int8 rows and their screen, mapped as they are.
    H8,
    /// bitnet.cpp's lookup tables for ARM: refused.
    Tl1,
    /// bitnet.cpp's lookup tables for x86: refused.
    Tl2,
    /// A GGUF type that Tern does not read.
    Other(u32),
    /// A safetensors dtype that holds no weights for Tern.
    Dtype(&'static str),
}

/// One tensor of a file, still encoded.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The name the file gives it.
    pub name: String,
    /// The sizes, outermost first, each above 0: `[rows, cols]` for a matrix. Empty for a single number.
    pub dims: Vec<usize>,
    /// What the bytes mean.
    pub encoding: Encoding,
    /// The one exact scale of a ternary tensor where the file states it outside the tensor's bytes: the multiplier of a
    /// packed `uint8` tensor, or Tern's exact f32 beside a tensor whose own scales are f16.
    pub scale: Option<f32>,
    /// Multiplies every weight: the `X.scale` tensor that some GGUF files keep beside `X.weight`; 1 without one.
    pub factor: f32,
    /// What MLX keeps beside a matrix.
    pub affine: Option<Box<Affine>>,
    /// The bytes, without padding.
    pub bytes: Bytes,
}

/// Two matrices of floats `[rows, groups]` beside a matrix of codes: a weight is `scale * code + bias`.
#[derive(Clone, Debug)]
pub struct Affine {
    /// A scale for every group of a row.
    pub scales: Tensor,
    /// A bias for every group of a row.
    pub biases: Tensor,
}

impl Tensor {
    /// One whose bytes say all about it: without a scale, a factor or anything else beside them.
    pub fn new(
        name: impl Into<String>,
        dims: impl Into<Vec<usize>>,
        encoding: Encoding,
        bytes: impl Into<Bytes>,
    ) -> Self {
        let (name, dims, bytes) = (name.into(), dims.into(), bytes.into());
        Self { name, dims, encoding, scale: None, factor: 1.0, affine: None, bytes }
    }

    /// Contiguous numbers per row: the innermost size.
    pub fn cols(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// The number of rows: the product of all sizes but the innermost.
    pub fn rows(&self) -> usize {
        self.dims.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// Reads what is mapped into memory of our own.
    pub(crate) fn copy(&mut self, path: &Path) -> Result<()> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(self.bytes.len()).map_err(|_| {
            Error::tensor(path, &self.name, format!("no memory for {} bytes", self.bytes.len()))
        })?;
        bytes.extend_from_slice(&self.bytes);
        if let Some(what) = self.bytes.owner().changed() {
            return Err(Error::Changed(what));
        }
        self.bytes.release();
        self.bytes = bytes.into();
        Ok(())
    }
}
