//! The base of the goldens and of small runs, and adapters beside it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use tern::adapter::tensor_name;
use tern::file::{self, OpenOptions};
use tern_convert::masters::Masters;
use tern_convert::{ConvertOptions, Target};
use tern_train::lora::{Base, Lora};
use tern_train::network::Network;
use tern_train::ops::Machine;
use tern_train::ops::lora::Pair;
use tern_train::ops::quantiser::Quantiser;
use tern_train::ops::rope::Angles;
use tern_train::params::Layout;
use tern_train::run::{End, train};

use super::{convert_from, run};

pub(crate) fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden").join(path)
}

pub(crate) fn floats(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    let bytes = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data();
    bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

pub(crate) fn ids(tensors: &SafeTensors, name: &str) -> Vec<u32> {
    let bytes = tensors.tensor(name).unwrap().data();
    bytes.as_chunks::<8>().0.iter().map(|&id| u64::from_le_bytes(id) as u32).collect()
}

/// The base of the goldens, and an adapter of PEFT's beside it.
pub(crate) struct Beside {
    pub(crate) config: tern::Config,
    pub(crate) layout: Layout,
    pub(crate) params: Vec<f32>,
}

impl Beside {
    pub(crate) fn open(lora: &Lora, tensors: &SafeTensors) -> Self {
        let file = file::open(&golden("bitnet_online_bf16"), OpenOptions::default()).unwrap();
        let masters = Masters::of(&file).unwrap();
        let config = masters.config().clone();
        let layout = Layout::adapter(&config, lora);
        let mut params = layout.beginning(&masters, 1).unwrap();
        for (layer, block) in layout.blocks.iter().enumerate() {
            for (projection, pair) in block.adapters.iter().enumerate() {
                let Some(Pair { a, b, .. }) = pair else { continue };
                for (half, at) in [("lora_A", a), ("lora_B", b)] {
                    let name = tensor_name(layer, projection, half);
                    params[at.clone()].copy_from_slice(&floats(tensors, &name));
                }
            }
        }
        Self { config, layout, params }
    }

    /// Holds the gradients of these layers' adapters against those of PEFT, to a thousandth of the largest in each.
    pub(crate) fn assert_gradients(&self, layers: Range<usize>, got: &[f32], known: &SafeTensors) {
        for layer in layers {
            for (projection, pair) in self.layout.blocks[layer].adapters.iter().enumerate() {
                let Pair { a, b, .. } = pair.as_ref().unwrap();
                for (half, at) in [("lora_A", a), ("lora_B", b)] {
                    let name = tensor_name(layer, projection, half);
                    let want = floats(known, &name);
                    let scale = want.iter().fold(0f32, |top, g| top.max(g.abs()));
                    for (i, (got, want)) in got[at.clone()].iter().zip(&want).enumerate() {
                        assert!((got - want).abs() < 1e-3 * scale, "{name}[{i}]: {got}, expected {want}");
                    }
                }
            }
        }
    }

    pub(crate) fn network(&self, on: Machine, length: usize, recompute: bool) -> Network {
        let angles = Angles::new(&self.config.rope, self.config.head_dim, length);
        let mut network = Network::new(&self.config, &self.layout, angles, Quantiser::Matrix, recompute);
        let file = file::open(&golden("bitnet_online_bf16"), OpenOptions::default()).unwrap();
        network.set_base(on, Base::read(on, &Masters::of(&file).unwrap()).unwrap());
        network
    }
}

/// A trained base of the small corpus, as masters and packed.
pub(crate) fn base(dir: &Path) -> (PathBuf, PathBuf) {
    let run = run(dir, "base", "steps = 60\nrate = 1e-2\nvalidate_every = 60\nsave_every = 60");
    let End::Done(masters) = train(&run, &|| false, &mut |_| {}).unwrap() else { panic!() };
    let packed = convert_from(&masters, dir, "base.gguf", &ConvertOptions::new(Target::T5));
    (masters, packed)
}
