//! LoRA beside a base that stays as it is: gradients and losses against PEFT (testdata/golden/gen/lora_train.py), whole runs
//! stopped and resumed, and the adapter in the engine.

mod common;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::beside::{Beside, base, floats, golden, ids};
use common::{folder, numbers, run};
use safetensors::SafeTensors;
use serde_json::Value;
use tern::file::{self, OpenOptions};
use tern::{Adapter, Head, KvFormat, LogSum, Logits, Model, Options, Row, Scratch, Sequence};
use tern_convert::adapter::merge;
use tern_convert::masters::Masters;
use tern_kernels::{Cpu, Norm, Pool};
use tern_train::config::Run;
use tern_train::corpus::Corpus;
use tern_train::lora::Lora;
use tern_train::metrics::{self, Line};
use tern_train::network::{Batch, Gradients, Network};
use tern_train::ops::lora::{self, Pair, Room, Source};
use tern_train::ops::loss::{NONE, RowLoss};
use tern_train::ops::{Machine, norm};
use tern_train::optimiser::{AdamW, Rates, squares};
use tern_train::params::Kind;
use tern_train::random::Random;
use tern_train::run::{End, Event, train};
use tern_train::start::Start;

/// One pass over sequences of one length; the mean loss and the gradients.
fn pass(
    network: &mut Network,
    on: Machine,
    params: &[f32],
    tokens: &[u32],
    length: usize,
) -> (f32, Vec<f32>) {
    let target = |at: usize| if (at + 1).is_multiple_of(length) { NONE } else { tokens[at + 1] };
    let targets: Vec<u32> = (0..tokens.len()).map(target).collect();
    let starts = vec![0; tokens.len()];
    let mut losses = vec![RowLoss::default(); tokens.len()];
    let mut grads = vec![f32::NAN; params.len()];
    let count = targets.iter().filter(|target| **target != NONE).count() as f32;
    network.prepare(on, params).unwrap();
    let batch = Batch { tokens, targets: &targets, starts: &starts };
    let back = Gradients { values: &mut grads, factor: 1.0 / count, weights: None, lesson: None };
    network.run(on, params, batch, &mut losses, Some(back)).unwrap();
    (losses.iter().map(|row| row.loss).sum::<f32>() / count, grads)
}

#[test]
fn loss_and_gradients_equal_those_of_peft() {
    let bytes = fs::read(golden("adapters/bitnet/adapter_model.safetensors")).unwrap();
    let lora = Lora::parse("rank=4,alpha=6,targets=all").unwrap();
    let beside = Beside::open(&lora, &SafeTensors::deserialize(&bytes).unwrap());
    let known = fs::read(golden("adapters/bitnet/gradients.safetensors")).unwrap();
    let known = SafeTensors::deserialize(&known).unwrap();
    let prompt = fs::read(golden("adapters/bitnet/golden.safetensors")).unwrap();
    let tokens = ids(&SafeTensors::deserialize(&prompt).unwrap(), "input_ids");
    let want_loss = floats(&known, "loss")[0];
    for cpu in Cpu::available() {
        let mut first = None;
        for (threads, recompute) in [(1, false), (3, true)] {
            let pool = Pool::new(threads);
            let on = Machine { cpu, pool: &pool };
            let mut network = beside.network(on, tokens.len(), recompute);
            let (loss, grads) = pass(&mut network, on, &beside.params, &tokens, tokens.len());
            assert!((loss - want_loss).abs() < 1e-4, "{loss} {want_loss}");
            beside.assert_gradients(0..beside.layout.blocks.len(), &grads, &known);
            for slice in beside.layout.slices.iter().filter(|slice| slice.kind == Kind::Frozen) {
                assert!(grads[slice.range.clone()].iter().all(|g| *g == 0.0), "{}", slice.name);
            }
            let bits: Vec<u32> = grads.iter().map(|g| g.to_bits()).collect();
            assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "{threads} threads");
        }
    }
}

#[test]
fn two_hundred_steps_lose_what_peft_loses_on_the_float_twin() {
    let known: Value =
        serde_json::from_str(&fs::read_to_string(golden("adapters/train/losses.json")).unwrap()).unwrap();
    let bytes = fs::read(golden("adapters/train/start.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let lora = Lora::parse("rank=4,alpha=8,targets=all").unwrap();
    let Beside { config, layout, mut params } = Beside::open(&lora, &tensors);
    let shape = tensors.tensor("ids").unwrap().shape().to_vec();
    let (count, length, data) = (shape[0], shape[1], ids(&tensors, "ids"));
    let number = |name: &str| known[name].as_f64().unwrap();
    let pool = Pool::new(2);
    let on = Machine { cpu: Cpu::best(), pool: &pool };
    let beside = Beside { config, layout: layout.clone(), params: Vec::new() };
    let mut network = beside.network(on, length, false);
    let (mut m, mut v) = (vec![0.0; params.len()], vec![0.0; params.len()]);
    let adam = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8 };
    let losses = |key: &str| -> Vec<f64> {
        known[key].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect()
    };
    let (want, ternary) = (losses("losses"), losses("ternary"));
    let sequences = number("sequences") as usize;
    let frozen = params.clone();
    let mut got = Vec::new();
    for step in 1..=want.len() {
        let batch: Vec<u32> = (0..sequences)
            .flat_map(|n| {
                let row = (sequences * (step - 1) + n) % count;
                data[row * length..][..length].iter().copied()
            })
            .collect();
        let (loss, grads) = pass(&mut network, on, &params, &batch, length);
        got.push(f64::from(loss));
        let clip = (number("clip") / squares(on, &grads).sqrt()).min(1.0) as f32;
        let rates = Rates {
            rate: number("rate") as f32,
            decay: number("weight_decay") as f32,
            clip,
            step: step as u64,
        };
        for slice in layout.slices.iter().filter(|slice| slice.kind != Kind::Frozen) {
            let at = slice.range.clone();
            adam.step(on, rates, &mut params[at.clone()], &grads[at.clone()], &mut m[at.clone()], &mut v[at]);
        }
    }
    // PEFT itself, through layers whose inputs are rounded as ours are, parts from its twin by up to 0.6 %.
    for (name, want) in [("the float twin", &want), ("the ternary layers", &ternary)] {
        for (at, (got, want)) in got.chunks(20).zip(want.chunks(20)).enumerate() {
            let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
            let (got, want) = (mean(got), mean(want));
            let apart = got / want - 1.0;
            println!("{name}, steps from {}: {got:.4}, PEFT {want:.4}, {:+.2} %", 20 * at, 100.0 * apart);
            assert!(apart.abs() < 0.01, "{name}, steps from {}: {got}, expected {want}", 20 * at);
        }
    }
    assert!(want[199] < 0.25 * want[0], "it learns");
    for slice in layout.slices.iter().filter(|slice| slice.kind == Kind::Frozen) {
        assert!(params[slice.range.clone()] == frozen[slice.range.clone()], "{}", slice.name);
    }
}

#[test]
fn backward_is_the_derivative_of_forward() {
    let (rows, inputs, outputs, rank, scale) = (5usize, 7usize, 9usize, 3usize, 1.75f32);
    let random = |seed: u64, len: usize| {
        let mut out = vec![0f32; len];
        Random::new(seed, 4).normals(1.0, &mut out);
        out
    };
    let (x, w, g) = (random(1, rows * inputs), random(2, inputs), random(3, rows * outputs));
    let pair = Pair { a: 0..rank * inputs, b: rank * inputs..rank * (inputs + outputs), scale };
    let params = random(4, rank * (inputs + outputs));
    // The sum of `g y`, in f64, of a plain statement of the forward.
    let plain = |n: &[f64], params: &[f64]| {
        let (a, b) = params.split_at(rank * inputs);
        let mut sum = 0.0;
        for row in 0..rows {
            for out in 0..outputs {
                for lane in 0..rank {
                    let low: f64 = (0..inputs).map(|i| a[lane * inputs + i] * n[row * inputs + i]).sum();
                    sum += f64::from(g[row * outputs + out]) * f64::from(scale) * b[out * rank + lane] * low;
                }
            }
        }
        sum
    };
    let differences = |x: &[f64], f: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
        let mut x = x.to_vec();
        (0..x.len())
            .map(|i| {
                let at = x[i];
                x[i] = at + 1e-5;
                let above = f(&x);
                x[i] = at - 1e-5;
                let below = f(&x);
                x[i] = at;
                (above - below) / 2e-5
            })
            .collect()
    };
    for cpu in Cpu::available() {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            let on = Machine { cpu, pool: &pool };
            let mut normed = vec![0f32; x.len()];
            norm::forward(on, &x, &w, 1e-5, &mut normed);
            let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
            let (n, p) = (wide(&normed), wide(&params));
            let source = Source { x: &x, cols: inputs, norm: Some(Norm { weight: &w, eps: 1e-5 }) };
            let (mut room, mut y) = (Room::default(), vec![1f32; rows * outputs]);
            lora::forward(on, &params, [None, Some(&pair)], source, [&mut [], &mut y], &mut room);
            let got: f64 = y.iter().zip(&g).map(|(y, g)| f64::from(y - 1.0) * f64::from(*g)).sum();
            assert!((got - plain(&n, &p)).abs() < 1e-3, "{got}, expected {}", plain(&n, &p));
            let (mut grads, mut dx) = (vec![f32::NAN; params.len()], vec![2f32; x.len()]);
            lora::backward(
                on,
                &params,
                [None, Some(&pair)],
                source,
                [&[], &g],
                &mut grads,
                &mut dx,
                &mut room,
            );
            for (got, want) in grads.iter().zip(differences(&p, &|p| plain(&n, p))) {
                assert!((f64::from(*got) - want).abs() < 1e-3 * (1.0 + want.abs()), "{got}, expected {want}");
            }
            for (got, want) in dx.iter().zip(differences(&n, &|n| plain(n, &p))) {
                assert!(
                    (f64::from(got - 2.0) - want).abs() < 1e-3 * (1.0 + want.abs()),
                    "{got}, expected {want}"
                );
            }
        }
    }
}

const LORA: &str = "lora = \"rank=4,alpha=8,targets=all\"\nrate = 3e-2\nsample_every = 6";

/// A run beside this base, on texts in which each word follows from the one before it.
fn tune(dir: &Path, out: &str, from: &Path, more: &str) -> Run {
    let words = ["the", "tern", "flies", "over", "a", "cold", "sea", "and", "sleeps", "on", "warm", "sand"];
    let text = |nth: usize| {
        let word = |at: usize| words[(nth + 5 * at) % words.len()];
        (0..12 + nth % 20).map(word).collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = (0..120).map(text).collect();
    fs::write(dir.join("c.txt"), texts.join("<|endoftext|>\n")).unwrap();
    run(dir, out, &format!("{LORA}\ntrain = [\"c.txt\"]\nfrom = \"{}\"\n{more}", from.display()))
}

fn adapter_of(end: End) -> PathBuf {
    let End::Done(adapter) = end else { panic!("{end:?}") };
    adapter
}

fn tensors(adapter: &Path) -> Vec<u8> {
    fs::read(adapter.join("adapter_model.safetensors")).unwrap()
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bits_and_the_base_stays_as_it_is() {
    let dir = folder();
    let (masters, packed) = base(dir.path());
    let before = fs::read(&packed).unwrap();
    let whole = tune(dir.path(), "whole", &packed, "");
    let want = tensors(&adapter_of(train(&whole, &|| false, &mut |_| {}).unwrap()));
    let said = numbers(&whole.out);
    let losses: Vec<f64> = metrics::read(&whole.out)
        .unwrap()
        .into_iter()
        .filter_map(|line| if let Line::Step(step) = line { Some(step.loss) } else { None })
        .collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[8..]) < mean(&losses[..4]), "{losses:?}");
    for (out, threads, more) in [("a", 1, ""), ("b", 3, "recompute = true")] {
        let broken = tune(dir.path(), out, &packed, &format!("threads = {threads}\n{more}"));
        for stop in [1, 5, 8] {
            let steps = Cell::new(0);
            let end = train(&broken, &|| steps.get() >= stop, &mut |event| {
                if let Event::Step(step) = event {
                    steps.set(step.step);
                }
            });
            assert!(matches!(end.unwrap(), End::Stopped(_)));
        }
        assert!(tensors(&adapter_of(train(&broken, &|| false, &mut |_| {}).unwrap())) == want, "{out}");
        assert_eq!(numbers(&broken.out), said, "{out}");
    }
    // Masters are rounded to the trits that the packed file holds.
    let again = tune(dir.path(), "masters-base", &masters, "");
    assert!(tensors(&adapter_of(train(&again, &|| false, &mut |_| {}).unwrap())) == want);
    assert!(fs::read(&packed).unwrap() == before, "the base was written to");
}

/// The mean loss of the engine on a run's held-out documents.
fn engine_loss(run: &Run, model: &Model, adapter: Option<Arc<Adapter>>) -> f64 {
    let start = Start::of(run).unwrap();
    let end = start.end().unwrap();
    let mut corpus = Corpus::open(run, &start.tokenizer, end, &mut |_| {}).unwrap();
    let (data, _) = corpus.held_out(run.validation_tokens, run.length).unwrap();
    let (mut nats, mut count) = (0f64, 0);
    let vocab = model.config().vocab;
    for (tokens, targets) in data.tokens.chunks(run.length).zip(data.targets.chunks(run.length)) {
        let starts: Vec<usize> =
            (0..=tokens.len()).filter(|&at| at == 0 || at == tokens.len() || tokens[at - 1] == end).collect();
        for document in starts.windows(2).filter(|ends| ends[0] < ends[1]) {
            let part = document[0]..document[1];
            let mut sequences = [Sequence::new(model, run.length).with_adapter(adapter.clone())];
            let row = |&token: &u32| Row { sequence: 0, token, logits: Logits::All };
            let rows: Vec<Row> = tokens[part.clone()].iter().map(row).collect();
            let mut scratch = Scratch::default();
            let logits = model.forward(&mut scratch, &mut sequences, &rows).unwrap();
            for (logits, target) in
                logits.chunks_exact(vocab).zip(&targets[part]).filter(|(_, target)| **target != NONE)
            {
                nats -= LogSum::of(logits).logprob(logits[*target as usize]);
                count += 1;
            }
        }
    }
    nats / f64::from(count)
}

#[test]
fn what_was_trained_is_what_runs_and_what_is_merged() {
    let dir = folder();
    let (masters, packed) = base(dir.path());
    let tuned = tune(dir.path(), "tuned", &packed, "steps = 200\nvalidate_every = 50\nrate = 2e-2");
    let adapter = adapter_of(train(&tuned, &|| false, &mut |_| {}).unwrap());
    let found = metrics::read(&tuned.out).unwrap().into_iter().rev().find_map(|line| match line {
        Line::Validation(found) => Some(found),
        _ => None,
    });
    let found = found.unwrap();
    assert!(found.trits.is_empty());
    let options = Options { head: Head::Stored, kv: KvFormat::F32, ..Options::default() };
    let model = Model::open(&packed, &options).unwrap();
    let read = Arc::new(Adapter::open(&adapter, model.config()).unwrap());
    let with = engine_loss(&tuned, &model, Some(read));
    assert!((with - found.loss).abs() < 1e-3, "{with}, the trainer {}", found.loss);
    let without = engine_loss(&tuned, &model, None);
    assert!(without > with + 0.05, "{without}, {with}");

    let merged = dir.path().join("merged");
    let masters = file::open(&masters, OpenOptions::default()).unwrap();
    merge(&masters, &adapter, &merged).unwrap();
    let got = engine_loss(&tuned, &Model::open(&merged, &options).unwrap(), None);
    println!("without {without:.4}, with {with:.4}, merged and rounded {got:.4}");
    let (new, read) = (
        file::open(&merged, OpenOptions::default()).unwrap(),
        Adapter::open(&adapter, model.config()).unwrap(),
    );
    let pair = read.pair(1, 6).unwrap();
    let (outputs, inputs) = (32, 48);
    let matrix = |file: &file::File| {
        let mut out = vec![0f32; outputs * inputs];
        Masters::of(file).unwrap().read("blk.1.ffn_down.weight", outputs, &mut out).unwrap();
        out
    };
    let (before, after) = (matrix(&masters), matrix(&new));
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        let (row, col) = (at / inputs, at % inputs);
        let added: f32 =
            (0..4).map(|lane| 2.0 * pair.b[lane * outputs + row] * pair.a[lane * inputs + col]).sum();
        assert!((before + added - after).abs() < 1e-6, "{row}, {col}: {before} {added} {after}");
    }
    let packed = file::open(&packed, OpenOptions::default()).unwrap();
    let error = merge(&packed, &adapter, &dir.path().join("no")).unwrap_err().to_string();
    assert!(error.contains("holds trits and no masters") && !error.contains('\n'), "{error}");
    assert!(!dir.path().join("no").exists());
}

#[test]
fn bases_that_cannot_be_are_told() {
    let dir = folder();
    let groups = run(
        dir.path(),
        "groups",
        "scales = \"row\"\nsub_norms = false\nactivation = \"silu\"\ndim = 64\nhidden = 128\nhead_dim = 32\nsteps = 1",
    );
    let End::Done(base) = train(&groups, &|| false, &mut |_| {}).unwrap() else { panic!() };
    let error = train(&tune(dir.path(), "x", &base, ""), &|| false, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("a scale for each row or group of weights"), "{error}");
    let error = train(&tune(dir.path(), "y", Path::new("nowhere"), ""), &|| false, &mut |_| {});
    assert!(error.unwrap_err().to_string().contains("nowhere"));
}
