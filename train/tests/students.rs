//! The graphs of float families in training, with sub-norms put into them: loss and gradients against PyTorch
//! (testdata/golden/gen/distil.py), and along themselves by differences.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;
use tern::file::{self, OpenOptions};
use tern_convert::masters::Masters;
use tern_kernels::{Cpu, Pool};
use tern_train::network::{Batch, Gradients, Network};
use tern_train::ops::Machine;
use tern_train::ops::loss::{NONE, RowLoss};
use tern_train::ops::quantiser::Quantiser;
use tern_train::ops::rope::Angles;
use tern_train::params::Layout;

const FAMILIES: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "gemma3"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden").join(name)
}

struct Student {
    config: tern::Config,
    layout: Layout,
    params: Vec<f32>,
    tokens: Vec<u32>,
}

/// The checkpoint with sub-norms whose gains are those of the script.
fn student(family: &str) -> Student {
    let folder = golden(&format!("float_{family}"));
    let file = file::open(&folder, OpenOptions::default()).unwrap();
    let masters = Masters::of(&file).unwrap();
    let config = masters.config().with_sub_norms().unwrap();
    let layout = Layout::new(&config, !masters.has_head());
    let (mut params, rebuilt) = layout.read(&masters, Quantiser::Float).unwrap();
    assert_eq!(rebuilt, 0);
    for (layer, block) in layout.blocks.iter().enumerate() {
        let both = [block.attn_sub_norm.clone().unwrap(), block.ffn_sub_norm.clone().unwrap()];
        for (which, range) in both.into_iter().enumerate() {
            assert!(params[range.clone()].iter().all(|gain| *gain == 1.0), "a sub-norm begins at 1");
            for (at, gain) in params[range].iter_mut().enumerate() {
                *gain = (1.0 + 0.3 * (0.7 * at as f64 + layer as f64 + 10.0 * which as f64).sin()) as f32;
            }
        }
    }
    let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let ids = tensors.tensor("input_ids").unwrap();
    let tokens = ids.data().chunks_exact(8).map(|id| u32::from_le_bytes(id[..4].try_into().unwrap()));
    Student { tokens: tokens.collect(), config, layout, params }
}

impl Student {
    fn network(&self, recompute: bool) -> Network {
        let angles = Angles::new(&self.config.rope, self.config.head_dim, self.tokens.len());
        Network::new(&self.config, &self.layout, angles, Quantiser::Float, recompute)
    }

    /// The mean loss, and its gradient where there is room for it.
    fn loss(&self, network: &mut Network, on: Machine, params: &[f32], back: Option<&mut [f32]>) -> f64 {
        let count = self.tokens.len() - 1;
        let targets: Vec<u32> = self.tokens[1..].iter().copied().chain([NONE]).collect();
        let (starts, mut losses) = (vec![0; count + 1], vec![RowLoss::default(); count + 1]);
        let back =
            back.map(|values| Gradients { values, factor: 1.0 / count as f32, weights: None, lesson: None });
        network.prepare(on, params).unwrap();
        let batch = Batch { tokens: &self.tokens, targets: &targets, starts: &starts };
        network.run(on, params, batch, &mut losses, back).unwrap();
        losses.iter().map(|row| f64::from(row.loss)).sum::<f64>() / count as f64
    }
}

#[test]
fn loss_and_gradients_of_every_family_equal_the_reference() {
    let text = std::fs::read_to_string(golden("distil_gradients.json")).unwrap();
    let known: Value = serde_json::from_str(&text).unwrap();
    for family in FAMILIES {
        let (student, known) = (student(family), &known[family]);
        for (cpu, recompute) in Cpu::available().into_iter().zip([false, true].into_iter().cycle()) {
            let pool = Pool::new(2);
            let on = Machine { cpu, pool: &pool };
            let mut grads = vec![f32::NAN; student.params.len()];
            let loss = student.loss(&mut student.network(recompute), on, &student.params, Some(&mut grads));
            let want = known["loss"].as_f64().unwrap();
            assert!((loss - want).abs() < 1e-5, "{family}: {loss}, expected {want}");
            let tensors = known["tensors"].as_object().unwrap();
            assert_eq!(tensors.len(), student.layout.slices.len(), "{family}");
            for slice in &student.layout.slices {
                let known = tensors.get(&slice.name).unwrap_or_else(|| panic!("{family}: {}", slice.name));
                let (got, want) = (&grads[slice.range.clone()], known["norm"].as_f64().unwrap());
                let norm = got.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                assert!(
                    (norm / want - 1.0).abs() < 1e-4,
                    "{family}, {}: {norm}, expected {want}",
                    slice.name
                );
                let at = known["at"].as_array().unwrap().iter().zip(known["values"].as_array().unwrap());
                for (at, value) in at {
                    let (got, value) = (got[at.as_u64().unwrap() as usize], value.as_f64().unwrap());
                    let near = (f64::from(got) - value).abs() < 1e-4 * norm;
                    assert!(near, "{family}, {}[{at}]: {got}, expected {value}", slice.name);
                }
            }
        }
    }
}

#[test]
fn the_gradient_of_every_family_is_the_slope_along_it() {
    let pool = Pool::new(1);
    let on = Machine { cpu: Cpu::best(), pool: &pool };
    for family in FAMILIES {
        let student = student(family);
        let (mut network, mut grads) = (student.network(false), vec![0.0; student.params.len()]);
        student.loss(&mut network, on, &student.params, Some(&mut grads));
        let squares: f64 = grads.iter().map(|g| f64::from(*g).powi(2)).sum();
        let step = 2e-3 / squares.sqrt();
        let mut at = |by: f64| {
            let moved: Vec<f32> = student
                .params
                .iter()
                .zip(&grads)
                .map(|(p, g)| (f64::from(*p) + by * f64::from(*g)) as f32)
                .collect();
            student.loss(&mut network, on, &moved, None)
        };
        let slope = (at(step) - at(-step)) / (2.0 * step);
        assert!((slope / squares - 1.0).abs() < 5e-3, "{family}: {slope}, expected {squares}");
    }
}
