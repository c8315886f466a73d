//! Training of a LoRA adapter: what the key `lora` says, where the adapter's numbers lie, and the base beside which they are
//! trained. The base stays packed: its trits are never floats and nothing of it changes.

use std::ops::Range;

use tern::adapter::shapes;
use tern::family::PROJECTIONS;
use tern_convert::masters::Masters;
use tern_kernels::{Packing, Scales, Ternary};

use crate::error::{Error, Result};
use crate::ops::Machine;
use crate::ops::lora::Pair;
use crate::ops::quantiser::Quantiser;
use crate::params::{Block, Kind, Layout, Slice};
use crate::random::Random;

/// An adapter to be trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// The width between its matrices.
    pub rank: usize,
    /// `alpha / rank` is what it counts.
    pub alpha: f32,
    /// Which of the seven projections of a block have one, in the order of [`PROJECTIONS`].
    pub targets: [bool; 7],
}

/// A projection's name in `targets`: `q_proj`.
pub fn short_name(projection: usize) -> &'static str {
    let (_, hf) = PROJECTIONS[projection];
    hf.rsplit_once('.').map_or(hf, |(_, name)| name)
}

impl Lora {
    /// Reads `rank=16,alpha=32,targets=q_proj+v_proj`; what is not said is that.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: String| Error::key("lora", what);
        let (mut rank, mut alpha, mut targets) = (16usize, None, "q_proj+v_proj");
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim();
            let number = || value.parse().ok().filter(|number: &f32| *number > 0.0 && number.is_finite());
            match name.trim() {
                "rank" => {
                    rank =
                        value.parse().ok().filter(|rank| (1..=1 << 14).contains(rank)).ok_or_else(|| {
                            wrong(format!("rank \"{value}\": expected a whole number from 1 to 16384"))
                        })?;
                }
                "alpha" => {
                    alpha = Some(
                        number()
                            .ok_or_else(|| wrong(format!("alpha \"{value}\": expected a number above 0")))?,
                    );
                }
                "targets" => targets = value,
                other => return Err(wrong(format!("\"{other}\": expected rank, alpha and targets"))),
            }
        }
        let names: [&str; 7] = std::array::from_fn(short_name);
        let mut wanted = [targets == "all"; 7];
        for target in targets.split('+').filter(|_| targets != "all") {
            let at = names.iter().position(|name| *name == target.trim());
            let known = || {
                format!("target \"{target}\": expected all, or names of {} with + between", names.join(", "))
            };
            wanted[at.ok_or_else(|| wrong(known()))?] = true;
        }
        Ok(Self { rank, alpha: alpha.unwrap_or(2.0 * rank as f32), targets: wanted })
    }

    /// What its product is multiplied by.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }
}

/// Does something to each range of a block.
fn each(block: &mut Block, change: impl Fn(&mut Range<usize>)) {
    let Block { attn_norm, q, k, v, biases, head_norms, attn_sub_norm, o, .. } = block;
    [attn_norm, q, k, v, o].into_iter().for_each(&change);
    biases.iter_mut().flatten().chain(head_norms.iter_mut().flatten()).chain(attn_sub_norm).for_each(&change);
    let Block { attn_post_norm, ffn_norm, gate, up, ffn_sub_norm, down, ffn_post_norm, .. } = block;
    [ffn_norm, gate, up, down].into_iter().for_each(&change);
    attn_post_norm.iter_mut().chain(ffn_sub_norm).chain(ffn_post_norm).for_each(&change);
}

impl Layout {
    /// The layout of an adapter beside a base of this configuration: the base's norms and biases, which stay as they are, and the two
    /// matrices of each projection that has an adapter. The base's other numbers are elsewhere.
    pub fn adapter(config: &tern::Config, lora: &Lora) -> Self {
        let mut all = Self::new(config, true);
        let (mut slices, mut len) = (Vec::new(), 0);
        let mut add = |name: String, rows: usize, cols: usize, kind: Kind| {
            let range = len..len + rows * cols;
            len = range.end;
            slices.push(Slice { name, rows, cols, range: range.clone(), kind });
            range
        };
        let kept: Vec<_> =
            all.slices.iter().filter(|slice| [Kind::Norm, Kind::Bias].contains(&slice.kind)).collect();
        let places: Vec<_> =
            kept.iter().map(|slice| add(slice.name.clone(), 1, slice.cols, Kind::Frozen)).collect();
        let moved = |range: &mut Range<usize>| {
            let at = kept.iter().position(|slice| slice.range == *range);
            *range = at.map_or(0..0, |at| places[at].clone());
        };
        all.blocks.iter_mut().for_each(|block| each(block, moved));
        moved(&mut all.norm);
        for (layer, block) in all.blocks.iter_mut().enumerate() {
            for (projection, (outputs, inputs)) in shapes(config).into_iter().enumerate() {
                if lora.targets[projection] {
                    let name = |half: &str| format!("blk.{layer}.{}.{half}", PROJECTIONS[projection].0);
                    let a = add(name("lora_a"), lora.rank, inputs, Kind::Adapter);
                    let b = add(name("lora_b"), outputs, lora.rank, Kind::Adapter);
                    block.adapters[projection] = Some(Pair { a, b, scale: lora.scale() });
                }
            }
        }
        Self { slices, embedding: 0..0, head: 0..0, blocks: all.blocks, norm: all.norm, len }
    }

    /// The numbers before the first step: the base's norms and biases; `A` as PEFT has it, uniform up to one over the root of its
    /// inputs (Kaiming's with a slope of √5); `B` zero, so that the model is the base's.
    pub fn beginning(&self, base: &Masters, seed: u64) -> Result<Vec<f32>> {
        let mut values = vec![0f32; self.len];
        for (nth, slice) in self.slices.iter().enumerate() {
            let out = &mut values[slice.range.clone()];
            if slice.kind == Kind::Frozen {
                base.read(&slice.name, 1, out)?;
            } else if slice.name.ends_with("lora_a") {
                let (mut random, bound) = (Random::new(seed, nth as u64), 1.0 / (slice.cols as f32).sqrt());
                out.iter_mut().for_each(|value| *value = bound * (2.0 * random.unit() - 1.0) as f32);
            }
        }
        Ok(values)
    }
}

/// The base of an adapter, as a step wants it.
#[derive(Debug)]
pub struct Base {
    /// `(vocab, dim)`.
    pub embedding: Vec<f32>,
    /// `(vocab, dim)`; `None` where the embedding serves.
    pub head: Option<Vec<f32>>,
    /// Those of each layer, in the order of [`PROJECTIONS`].
    pub matrices: Vec<[Ternary; 7]>,
}

impl Base {
    /// Packs the base's trits; masters are rounded as training and the engine round them.
    pub fn read(on: Machine, from: &Masters) -> Result<Self> {
        let config = from.config();
        if from.are_floats()? {
            let what = "`from` is a float model: expected a ternary one, as `tern train distil` makes of it";
            return Err(Error::key("lora", what));
        }
        let floats = |name: &str| {
            let mut out = vec![0f32; config.vocab * config.dim];
            from.read(name, config.vocab, &mut out).map(|()| out)
        };
        let matrix = |layer: usize, projection: usize| {
            let (outputs, inputs) = shapes(config)[projection];
            packed(on, from, &format!("blk.{layer}.{}.weight", PROJECTIONS[projection].0), outputs, inputs)
        };
        let mut matrices = Vec::new();
        for layer in 0..config.layers {
            let mut seven = Vec::new();
            for projection in 0..7 {
                seven.push(matrix(layer, projection)?);
            }
            matrices.extend(<[Ternary; 7]>::try_from(seven));
        }
        let head = if from.has_head() { Some(floats("output.weight")?) } else { None };
        Ok(Self { embedding: floats("token_embd.weight")?, head, matrices })
    }

    /// About the bytes that one of this configuration takes.
    pub(crate) fn size(config: &tern::Config, has_head: bool) -> usize {
        let trits: usize = shapes(config).into_iter().map(|(outputs, inputs)| outputs * inputs).sum();
        4 * config.vocab * config.dim * if has_head { 2 } else { 1 } + config.layers * trits / 4
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> u64 {
        let floats = 4 * (self.embedding.len() + self.head.as_ref().map_or(0, Vec::len)) as u64;
        floats + self.matrices.iter().flatten().map(|matrix| matrix.blocks().len() as u64).sum::<u64>()
    }
}

/// One matrix of the base.
fn packed(on: Machine, from: &Masters, name: &str, outputs: usize, inputs: usize) -> Result<Ternary> {
    let mut trits = vec![0i8; outputs * inputs];
    let scales = match from.trits(name, outputs, &mut trits)? {
        Some(scales) => scales,
        None => {
            let mut floats = vec![0f32; outputs * inputs];
            from.read(name, outputs, &mut floats)?;
            Quantiser::Matrix.trits(on, &floats, inputs, &mut trits)
        }
    };
    let Scales::One(scale) = scales else {
        let what = "the base has a scale for each row or group of weights: expected one with a scale for each matrix (BitNet)";
        return Err(Error::key("lora", format!("tensor {name}: {what}")));
    };
    if !scale.is_finite() {
        return Err(Error::key("lora", format!("tensor {name}: its scale is {scale}: expected a number")));
    }
    let row = |row: usize, out: &mut [i8]| {
        out.copy_from_slice(&trits[row * inputs..][..inputs]);
        Ok::<(), std::convert::Infallible>(())
    };
    let Ok(packed) = Ternary::pack(Packing::I2, outputs, inputs, Scales::One(scale), on.pool, row);
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_faults_named() {
        let lora = Lora::parse("rank=8,alpha=12,targets=q_proj+down_proj").unwrap();
        assert_eq!((lora.rank, lora.scale()), (8, 1.5));
        assert_eq!(lora.targets, [true, false, false, false, false, false, true]);
        assert_eq!(Lora::parse("").unwrap(), Lora::parse("rank=16,alpha=32,targets=q_proj+v_proj").unwrap());
        assert_eq!(Lora::parse("targets=all").unwrap().targets, [true; 7]);
        for (text, wanted) in [
            ("rank=0", "rank \"0\""),
            ("rank=many", "rank \"many\""),
            ("alpha=-1", "alpha \"-1\""),
            ("alpha=nan", "alpha \"nan\""),
            ("targets=lm_head", "target \"lm_head\": expected all, or names of q_proj, k_proj"),
            ("targets=", "target \"\""),
            ("width=3", "\"width\": expected rank, alpha and targets"),
        ] {
            let error = Lora::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("key `lora`") && error.contains(wanted), "{text}: {error}");
        }
    }
}
