//! What a model knows: its tensors, brought into the shape that the forward pass wants.

use std::ops::Range;

use tern_kernels::{
    Cpu, FloatFormat, Matrix, OutputHead, Packing, Panels, Pool, Ternary, decode, dot, dots, transpose,
};

use crate::codec::{self, Trits};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::family::Detected;
use crate::file::File;
use crate::tensor::{Encoding, Tensor};

/// How the output head is held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Head {
    /// The numbers of the file.
    Stored,
    /// Rows rounded to int8 with one scale each. Where only the largest logits are asked for, a pass over 3 bits of
    /// every weight finds the few rows that must be computed; the logits are the same.
    ///
    /// A head whose weights are ternary is held as [`Head::Ternary`] instead.
    #[default]
    Int8,
    /// Trits, as the matrices of the blocks: only where the file's head is ternary. Every logit is computed.
    Ternary,
}

impl Head {
    /// The ways of holding a head that can be asked for.
    pub const CHOICES: [Head; 2] = [Head::Int8, Head::Stored];

    /// The name used in logs and options.
    pub fn name(self) -> &'static str {
        match self {
            Head::Int8 => "int8",
            Head::Stored => "stored",
            Head::Ternary => "ternary",
        }
    }

    /// The choice of this name.
    pub fn from_name(name: &str) -> Option<Head> {
        Self::CHOICES.into_iter().find(|head| head.name() == name)
    }
}

/// Every tensor of a model.
#[derive(Debug)]
pub(crate) struct Weights {
    /// `(vocab, dim)`.
    pub embedding: Dense,
    pub layers: Vec<Layer>,
    /// `(dim)`.
    pub norm: Vec<f32>,
    /// `(vocab, dim)`.
    pub output: Output,
}

impl Weights {
    /// Whether some matrix has scales for its rows or for groups of columns.
    pub(crate) fn has_scales_in_rows(&self) -> bool {
        self.layers.iter().flat_map(Layer::matrices).any(|matrix| !matrix.has_one_scale())
    }
}

/// One block.
#[derive(Debug)]
pub(crate) struct Layer {
    pub attn_norm: Vec<f32>, // (dim)
    pub q: Projection,       // (q_dim, dim)
    pub k: Projection,       // (kv_dim, dim)
    pub v: Projection,       // (kv_dim, dim)
    /// `(head_dim)` each, of q and of k; Qwen3 and Gemma3.
    pub head_norms: Option<[Vec<f32>; 2]>,
    /// `(q_dim)`; BitNet only.
    pub attn_sub_norm: Option<Vec<f32>>,
    pub o: Projection, // (dim, q_dim)
    /// `(dim)`; Gemma3 only.
    pub attn_post_norm: Option<Vec<f32>>,
    pub ffn_norm: Vec<f32>, // (dim)
    pub gate: Projection,   // (hidden, dim)
    pub up: Projection,     // (hidden, dim)
    /// `(hidden)`; BitNet only.
    pub ffn_sub_norm: Option<Vec<f32>>,
    pub down: Projection, // (dim, hidden)
    /// `(dim)`; Gemma3 only.
    pub ffn_post_norm: Option<Vec<f32>>,
}

/// A matrix of a block.
#[derive(Debug)]
pub(crate) enum Weight {
    Ternary(Ternary),
    /// Of a float model that is run as it is.
    Floats(Dense),
}

impl Weight {
    pub(crate) fn ternary(&self) -> Option<&Ternary> {
        match self {
            Weight::Ternary(matrix) => Some(matrix),
            Weight::Floats(_) => None,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        match self {
            Weight::Ternary(matrix) => matrix.rows(),
            Weight::Floats(matrix) => matrix.tensor.rows(),
        }
    }
}

/// A matrix and what some families put around it.
#[derive(Debug)]
pub(crate) struct Projection {
    /// `(columns)`: the norm of its own input.
    pub norm: Option<Vec<f32>>,
    pub weight: Weight,
    /// `(rows)`.
    pub bias: Option<Vec<f32>>,
}

impl Layer {
    /// Its ternary matrices.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &Ternary> {
        self.projections().into_iter().filter_map(|projection| projection.weight.ternary())
    }

    /// Bytes of its matrices of floats.
    pub(crate) fn float_bytes(&self) -> usize {
        let bytes = |projection: &Projection| match &projection.weight {
            Weight::Ternary(_) => 0,
            Weight::Floats(matrix) => matrix.bytes(),
        };
        self.projections().into_iter().map(bytes).sum()
    }

    fn projections(&self) -> [&Projection; 7] {
        [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down]
    }

    /// Numbers in all its norms and biases.
    pub(crate) fn norm_len(&self) -> usize {
        let len = |norm: &Option<Vec<f32>>| norm.as_ref().map_or(0, Vec::len);
        let around = self.projections().map(|projection| len(&projection.norm) + len(&projection.bias));
        let some = [&self.attn_sub_norm, &self.attn_post_norm, &self.ffn_sub_norm, &self.ffn_post_norm];
        let heads = self.head_norms.iter().flatten().map(Vec::len).sum::<usize>();
        let sub_norms = some.map(len).iter().sum::<usize>();
        self.attn_norm.len() + self.ffn_norm.len() + heads + sub_norms + around.iter().sum::<usize>()
    }
}

/// Rows of a matrix of floats that a thread takes at a time.
const PIECE: usize = 16;
/// Rows from which on products go by panels, which have room for 64.
pub(crate) const MANY: usize = 24;

/// A matrix of floats, left as the file stores it.
#[derive(Debug)]
pub(crate) struct Dense {
    tensor: Tensor,
    cols: usize,
}

impl Dense {
    /// Bytes of the whole matrix.
    pub(crate) fn bytes(&self) -> usize {
        self.tensor.bytes.len()
    }

    /// Decodes one row; `out` is as long as a row.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) -> Result<(), String> {
        codec::floats(&self.tensor, row, out)
    }

    /// `out[i] = row (rows.start + i) · x`.
    pub(crate) fn dots(
        &self,
        cpu: Cpu,
        rows: Range<usize>,
        x: &[f32],
        out: &mut [f32],
    ) -> Result<(), String> {
        if let Some((format, len)) = self.plain() {
            dots(cpu, format, &self.tensor.bytes[rows.start * len..rows.end * len], x, out);
            return Ok(());
        }
        let mut row = vec![0f32; self.cols];
        for (r, out) in rows.zip(out) {
            self.row(r, &mut row)?;
            *out = dot(cpu, &row, x);
        }
        Ok(())
    }

    /// `out[r] = row r · x` for all of the matrix, on all threads.
    pub(crate) fn product(&self, cpu: Cpu, pool: &Pool, x: &[f32], out: &mut [f32]) {
        let (format, len) = self.plain().expect("the loader lets no other through");
        pool.for_chunks(out, PIECE, |piece, out| {
            dots(cpu, format, &self.tensor.bytes[piece * PIECE * len..][..out.len() * len], x, out)
        });
    }

    /// `out[t, r] = row r · x[t]` for rows of `x`, which is in `panels` as well if it has [`MANY`]. An output is the same sum as alone,
    /// on every instruction set.
    pub(crate) fn products(
        &self,
        cpu: Cpu,
        pool: &Pool,
        x: &[f32],
        panels: &Panels,
        beside: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let (format, len) = self.plain().expect("the loader lets no other through");
        let (rows, count) = (self.tensor.rows(), x.len() / self.cols);
        // Rows are read and made floats of once for all of `x`.
        beside.resize(rows * count, 0.0);
        pool.for_chunks(beside, PIECE * count, |piece, out| {
            let some = out.len() / count;
            let mut numbers = vec![0f32; some * self.cols];
            decode(cpu, format, &self.tensor.bytes[piece * PIECE * len..][..some * len], &mut numbers);
            if count >= MANY {
                panels.product(cpu, &numbers, out);
                return;
            }
            for (row, out) in numbers.chunks_exact(self.cols).zip(out.chunks_exact_mut(count)) {
                x.chunks_exact(self.cols).zip(out).for_each(|(x, out)| *out = dot(cpu, row, x));
            }
        });
        let beside = Matrix::new(beside, count);
        pool.for_chunks(out, PIECE * rows, |piece, out| {
            transpose(cpu, beside.columns(piece * PIECE, out.len() / rows), out, rows);
        });
    }

    /// The format of numbers that are nothing but stored, and the bytes of a row.
    fn plain(&self) -> Option<(FloatFormat, usize)> {
        let format = match self.tensor.encoding {
            Encoding::F32 => FloatFormat::F32,
            Encoding::F16 => FloatFormat::F16,
            Encoding::Bf16 => FloatFormat::Bf16,
            _ => return None,
        };
        (self.tensor.factor == 1.0).then_some((format, self.cols * format.size()))
    }

    /// The matrix in int8.
    fn output_head(&self, cpu: Cpu, pool: &Pool) -> Result<OutputHead, String> {
        if let Some(mapped) = codec::mapped_head(&self.tensor, cpu, pool) {
            return mapped;
        }
        let row = |row: usize, out: &mut [f32]| match self.plain() {
            Some((format, len)) => {
                decode(cpu, format, &self.tensor.bytes[row * len..][..len], out);
                Ok(())
            }
            None => self.row(row, out),
        };
        let head = OutputHead::build(cpu, pool, self.tensor.rows(), self.cols, row).map_err(codec::bad_head);
        // Of an embedding that is a head as well only single rows are read from now on.
        self.tensor.bytes.release();
        head
    }
}

/// The head in the form that was chosen.
#[derive(Debug)]
pub(crate) enum Output {
    /// `None` where the embedding serves.
    Stored(Option<Dense>),
    Int8(OutputHead),
    Ternary(Ternary),
    /// An embedding model has none.
    None,
}

/// Takes the tensors of a model out of its file, each checked against the shape that the configuration asks for.
pub(crate) struct Loader<'a> {
    pub file: &'a File,
    pub detected: &'a Detected,
    pub cpu: Cpu,
    pub pool: &'a Pool,
    /// The packing that was asked for.
    pub packing: Option<Packing>,
    /// The packing for weights that do not come packed, unless one is asked for.
    pub quickest: Packing,
    pub head: Head,
    /// Float weights of a model that was not trained ternary are used as they are.
    pub floats: bool,
}

impl Loader<'_> {
    pub(crate) fn load(&self) -> Result<Weights> {
        let Config { dim, layers, vocab, .. } = self.detected.config;
        let embedding = self.dense("token_embd.weight", vocab, dim)?;
        let own_head = match self.file.tensor(&self.detected.name("output.weight")) {
            Some(_) => Some(self.dense("output.weight", vocab, dim)?),
            None => None,
        };
        let head = own_head.as_ref().unwrap_or(&embedding);
        let floats = self.are_floats()?;
        let output = match self.head {
            _ if self.detected.config.pooling.is_some() && own_head.is_none() => Output::None,
            Head::Stored => Output::Stored(own_head),
            // What is run in floats is run so to its end.
            Head::Int8 if floats => Output::Stored(own_head),
            // Trits are less to read than int8 rows and the screen before them.
            Head::Int8 | Head::Ternary if codec::is_ternary(&head.tensor) => {
                Output::Ternary(self.packed(&head.tensor)?)
            }
            Head::Ternary => {
                let what = "holds numbers that are not ternary; choose the int8 or the stored head";
                return Err(self.file.error(&head.tensor.name, what));
            }
            Head::Int8 => {
                let built = head.output_head(self.cpu, self.pool);
                Output::Int8(built.map_err(|what| self.file.error(&head.tensor.name, what))?)
            }
        };
        Ok(Weights {
            embedding,
            layers: (0..layers).map(|layer| self.layer(layer, floats)).collect::<Result<_>>()?,
            norm: self.vector("output_norm.weight", dim)?,
            output,
        })
    }

    fn layer(&self, layer: usize, floats: bool) -> Result<Layer> {
        let Config { dim, hidden, head_dim, sub_norms, ref graph, .. } = self.detected.config;
        let (q_dim, kv_dim) = (self.detected.config.q_dim(), self.detected.config.kv_dim());
        let name = |module: &str| format!("blk.{layer}.{module}.weight");
        let vector = |module: &str, len| self.vector(&name(module), len);
        let some = |is: bool, module: &str, len| is.then(|| vector(module, len)).transpose();
        let sub_norm = |module: &str, len| some(sub_norms, module, len);
        let post_norm = |module: &str| some(graph.post_norms, module, dim);
        let matrix = |module: &str, rows, cols| -> Result<Projection> {
            let biased = graph.biases && ["attn_q", "attn_k", "attn_v"].contains(&module);
            let bias =
                biased.then(|| self.vector(&format!("blk.{layer}.{module}.bias"), rows)).transpose()?;
            let norm = some(graph.input_norms, &format!("{module}_norm_in"), cols)?;
            Ok(Projection { norm, weight: self.weight(&name(module), rows, cols, floats)?, bias })
        };
        let head_norms = match graph.head_norms {
            true => {
                let mut q = vector("attn_q_norm", head_dim)?;
                q.iter_mut().for_each(|weight| *weight *= graph.query_scale);
                Some([q, vector("attn_k_norm", head_dim)?])
            }
            false => None,
        };
        Ok(Layer {
            attn_norm: vector("attn_norm", dim)?,
            q: matrix("attn_q", q_dim, dim)?,
            k: matrix("attn_k", kv_dim, dim)?,
            v: matrix("attn_v", kv_dim, dim)?,
            head_norms,
            attn_sub_norm: sub_norm("attn_sub_norm", q_dim)?,
            o: matrix("attn_output", dim, q_dim)?,
            attn_post_norm: post_norm("post_attention_norm")?,
            ffn_norm: vector("ffn_norm", dim)?,
            gate: matrix("ffn_gate", hidden, dim)?,
            up: matrix("ffn_up", hidden, dim)?,
            ffn_sub_norm: sub_norm("ffn_sub_norm", hidden)?,
            down: matrix("ffn_down", dim, hidden)?,
            ffn_post_norm: post_norm("post_ffw_norm")?,
        })
    }

    /// The tensor of a canonical name, with the dimensions expected.
    fn tensor(&self, canonical: &str, dims: &[usize]) -> Result<&Tensor> {
        let name = self.detected.name(canonical);
        let missing = || Error::tensor(&self.file.path, &name, "missing; the model cannot run without it");
        let tensor = self.file.tensor(&name).ok_or_else(missing)?;
        if tensor.dims != dims {
            let what = format!("dimensions {:?}: expected {dims:?} by the configuration", tensor.dims);
            return Err(self.file.error(&tensor.name, what));
        }
        Ok(tensor)
    }

    fn vector(&self, canonical: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.tensor(canonical, &[len])?;
        let mut values = vec![0f32; len];
        codec::floats(tensor, 0, &mut values).map_err(|what| self.file.error(&tensor.name, what))?;
        if self.detected.less_one(canonical) {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(self
                .file
                .error(&tensor.name, format!("element {at} is {}: expected a number", values[at]))),
            None => Ok(values),
        }
    }

    fn dense(&self, canonical: &str, rows: usize, cols: usize) -> Result<Dense> {
        let tensor = self.tensor(canonical, &[rows, cols])?;
        let mut row = vec![0f32; cols];
        codec::floats(tensor, 0, &mut row).map_err(|what| self.file.error(&tensor.name, what))?; // an encoding that cannot be read
        Ok(Dense { tensor: tensor.clone(), cols })
    }

    fn weight(&self, canonical: &str, rows: usize, cols: usize, floats: bool) -> Result<Weight> {
        let tensor = self.tensor(canonical, &[rows, cols])?;
        if !floats {
            return self.packed(tensor).map(Weight::Ternary);
        }
        let matrix = Dense { tensor: tensor.clone(), cols };
        match matrix.plain() {
            Some(_) => Ok(Weight::Floats(matrix)),
            None => Err(self
                .file
                .error(&tensor.name, "expected f32, f16 or bf16 weights of a model that is run in floats")),
        }
    }

    /// Whether the model is a float model that is to be run as it is: told by its first matrix, all of which is read
    /// for it.
    fn are_floats(&self) -> Result<bool> {
        if !self.floats || self.detected.trained_ternary {
            return Ok(false);
        }
        let name = self.detected.name("blk.0.attn_q.weight");
        let Some(tensor) = self.file.tensor(&name) else { return Ok(false) };
        let trits = Trits::open(tensor).map_err(|what| self.file.error(&tensor.name, what))?;
        Ok(!trits.is_exact())
    }

    /// A matrix of trits as the kernels want it.
    fn packed(&self, tensor: &Tensor) -> Result<Ternary> {
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let error = |what| self.file.error(&tensor.name, what);
        if let Some(mapped) = codec::mapped(tensor).map_err(error)? {
            if let Some(at) = self.invalid(&mapped) {
                return Err(error(format!("byte {at} of the blocks stands for no trits")));
            }
            // I2 is quick everywhere; T5 is repacked where it is not.
            let good = mapped.packing() == Packing::I2 || self.quickest == Packing::T5;
            if self.packing.map_or(good, |packing| packing == mapped.packing()) {
                return Ok(mapped);
            }
        }
        let trits = Trits::open(tensor).map_err(error)?;
        if !trits.is_exact() && !self.detected.trained_ternary {
            let what = "float weights of a model that was not trained ternary; `--floats` runs them as they are, and \
                        `tern train distil` trains a ternary model of it, `tern convert --lossy` rounds them all the same, at a great loss of quality";
            return Err(error(what.to_owned()));
        }
        let packing = self.packing.unwrap_or(self.quickest);
        let row = |row: usize, out: &mut [i8]| trits.row(row, out);
        let packed =
            Ternary::pack(packing, rows, cols, trits.scales().clone(), self.pool, row).map_err(error);
        // The matrix has its own bytes from now on; of an embedding that is a head as well only single rows are read.
        tensor.bytes.release();
        packed
    }

    /// The first byte of mapped blocks that cannot be, looked for on all threads.
    fn invalid(&self, matrix: &Ternary) -> Option<usize> {
        let mut found = vec![None; self.pool.threads()];
        self.pool.for_chunks(&mut found, 1, |worker, found| {
            let share = self.pool.share(matrix.blocks().len(), worker);
            let at = matrix.packing().invalid_byte(&matrix.blocks()[share.clone()]);
            found[0] = at.map(|at| share.start + at);
        });
        found.into_iter().flatten().next()
    }
}
