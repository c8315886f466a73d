//! What a student learns of a teacher, and rounding that grows: against PyTorch (testdata/golden/gen/distil.py) and by
//! differences of plain statements in f64.

use serde_json::Value;
use tern_kernels::{Cpu, Pool, Rounding};
use tern_train::ops::Machine;
use tern_train::ops::linear::{self, Input, Room};
use tern_train::ops::loss::divergence::{Tops, Weight};
use tern_train::ops::loss::{self, Back, Head, NONE, RowLoss, Says};
use tern_train::ops::quantiser::Quantiser;
use tern_train::ops::relation::{self, Shape};

fn golden(part: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/golden/distil_losses.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    all[part].clone()
}

fn numbers(golden: &Value, key: &str) -> Vec<f32> {
    golden[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn number(golden: &Value, key: &str) -> f64 {
    golden[key].as_f64().unwrap()
}

/// A target of PyTorch, of which -100 is none.
fn targets(golden: &Value) -> Vec<u32> {
    let target = |t: &Value| u32::try_from(t.as_i64().unwrap()).unwrap_or(NONE);
    golden["targets"].as_array().unwrap().iter().map(target).collect()
}

fn everywhere(check: impl Fn(Machine)) {
    for cpu in Cpu::available() {
        for threads in [1, 3] {
            check(Machine { cpu, pool: &Pool::new(threads) });
        }
    }
}

fn assert_close(what: &str, got: &[f32], want: &[f64], share: f64) {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(1e-6f64, |top, x| top.max(x.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() < share * scale, "{what}[{i}]: {got}, expected {want}");
    }
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn differences(x: &[f32], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = wide(x);
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
}

fn softmax(z: &[f64]) -> Vec<f64> {
    let top = z.iter().fold(f64::NEG_INFINITY, |top, z| top.max(*z));
    let sum: f64 = z.iter().map(|z| (z - top).exp()).sum();
    z.iter().map(|z| (z - top).exp() / sum).collect()
}

/// Logits that come of a head that is the unit matrix: rows are logits, and `dx` their gradient.
struct Logits {
    rows: usize,
    vocab: usize,
    student: Vec<f32>,
    teacher: Vec<f32>,
    targets: Vec<u32>,
    weight: Weight,
}

impl Logits {
    fn golden() -> (Self, Value) {
        let known = golden("dense");
        let (temperature, kl) = (number(&known, "temperature") as f32, number(&known, "kl") as f32);
        let size = |key| known[key].as_u64().unwrap() as usize;
        let logits = Self {
            rows: size("rows"),
            vocab: size("vocab"),
            student: numbers(&known, "student"),
            teacher: numbers(&known, "teacher"),
            targets: targets(&known),
            weight: Weight { kl, temperature },
        };
        (logits, known)
    }

    fn known(&self) -> f32 {
        self.targets.iter().filter(|target| **target != NONE).count() as f32
    }

    /// The means of both losses, and the gradient by logits.
    fn run(&self, on: Machine, tops: Option<&Tops>) -> (f64, f64, Vec<f32>) {
        let (vocab, len) = (self.vocab, self.rows * self.vocab);
        let mut unit = vec![0f32; vocab * vocab];
        (0..vocab).for_each(|i| unit[i * vocab + i] = 1.0);
        let (mut room, mut head) = (loss::Room::default(), Head::default());
        room.prepare(on, &unit, vocab);
        head.set(on, &unit, vocab);
        let says = tops.map_or(Says::Hidden { x: &self.teacher, head: &head }, Says::Tops);
        let (mut dx, mut de) = (vec![f32::NAN; len], vec![0f32; vocab * vocab]);
        let mut rows = vec![RowLoss::default(); self.rows];
        let lesson = Some((says, self.weight));
        let back = Back {
            e: &unit,
            factor: 1.0 / self.known(),
            dx: &mut dx,
            de: Some(&mut de),
            weights: None,
            lesson,
        };
        room.run(on, &self.student, vocab, &self.targets, &mut rows, Some(back));
        let mean = |of: fn(&RowLoss) -> f32| {
            rows.iter().map(|row| f64::from(of(row))).sum::<f64>() / f64::from(self.known())
        };
        (mean(|row| row.loss), mean(|row| row.divergence), dx)
    }

    /// Both losses in f64, of logits `z`; the rest of the teacher's tokens is one where `tops` are given.
    fn loss(&self, z: &[f64], tops: Option<&Tops>) -> f64 {
        let Weight { kl, temperature } = self.weight;
        let tau = f64::from(temperature);
        let mut total = 0.0;
        for (row, target) in self.targets.iter().enumerate().filter(|(_, target)| **target != NONE) {
            let at = row * self.vocab..(row + 1) * self.vocab;
            let (z, t) = (&z[at.clone()], wide(&self.teacher[at]));
            total -= softmax(z)[*target as usize].ln();
            let soft = |z: &[f64]| softmax(&z.iter().map(|z| z / tau).collect::<Vec<_>>());
            let (mut p, mut q) = (soft(&t), soft(z));
            if let Some(Tops { count, tokens, .. }) = tops {
                let kept = &tokens[row * count..][..*count];
                let few = |all: &[f64]| {
                    let mut few: Vec<f64> = kept.iter().map(|id| all[*id as usize]).collect();
                    few.push(1.0 - few.iter().sum::<f64>());
                    few
                };
                (p, q) = (few(&p), few(&q));
            }
            total += f64::from(kl) * tau * tau * p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
        }
        total / f64::from(self.known())
    }

    /// The teacher's likeliest tokens, in f64.
    fn tops(&self, count: usize) -> Tops {
        let mut tops = Tops { count, ..Tops::default() };
        for row in self.teacher.chunks(self.vocab) {
            let soft: Vec<f64> =
                row.iter().map(|z| f64::from(*z) / f64::from(self.weight.temperature)).collect();
            let p = softmax(&soft);
            let mut order: Vec<usize> = (0..self.vocab).collect();
            order.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
            tops.tokens.extend(order[..count].iter().map(|id| *id as u32));
            tops.logs.extend(order[..count].iter().map(|id| p[*id].ln() as f32));
            tops.rest.push(order[count..].iter().map(|id| p[*id]).sum::<f64>() as f32);
        }
        tops
    }
}

#[test]
fn divergence_of_logits_equals_the_reference_and_differences() {
    let (logits, known) = Logits::golden();
    let slopes = differences(&logits.student, |z| logits.loss(z, None));
    let want: Vec<f64> = wide(&numbers(&known, "gradient"));
    everywhere(|on| {
        let (cross, divergence, gradient) = logits.run(on, None);
        assert!((cross - number(&known, "loss")).abs() < 1e-5, "{cross}");
        assert!((divergence - number(&known, "divergence")).abs() < 1e-4, "{divergence}");
        assert_close("reference", &gradient, &want, 3e-5);
        assert_close("slope", &gradient, &slopes, 3e-5);
    });
}

#[test]
fn likeliest_tokens_and_the_rest_equal_the_reference_and_differences() {
    let (logits, _) = Logits::golden();
    let known = golden("stored");
    let tops = logits.tops(known["top"].as_u64().unwrap() as usize);
    let slopes = differences(&logits.student, |z| logits.loss(z, Some(&tops)));
    let want: Vec<f64> = wide(&numbers(&known, "gradient"));
    let all = logits.tops(logits.vocab);
    everywhere(|on| {
        let (_, divergence, gradient) = logits.run(on, Some(&tops));
        assert!((divergence - number(&known, "divergence")).abs() < 1e-4, "{divergence}");
        assert_close("reference", &gradient, &want, 3e-5);
        assert_close("slope", &gradient, &slopes, 3e-5);
        // With every token among them, it is the divergence itself; with few, less, and the gradient is as near as is told.
        let (_, whole, exact) = logits.run(on, None);
        let (_, same, close) = logits.run(on, Some(&all));
        assert!((whole - same).abs() < 1e-4 && divergence < whole, "{whole} {same} {divergence}");
        assert_close("all", &close, &wide(&exact), 1e-4);
        let Weight { kl, temperature } = logits.weight;
        for row in (0..logits.rows).filter(|row| logits.targets[*row] != NONE) {
            let at = row * logits.vocab..(row + 1) * logits.vocab;
            let off: f32 = gradient[at.clone()].iter().zip(&exact[at]).map(|(a, b)| (a - b).abs()).sum();
            let bound = 2.0 * tops.rest[row] * temperature * kl / logits.known();
            assert!(off <= bound && off > 0.01 * bound, "row {row}: {off}, at most {bound}");
        }
    });
}

#[test]
fn relations_equal_the_reference_and_differences() {
    let known = golden("relation");
    let size = |key: &str| known[key].as_u64().unwrap() as usize;
    let (tokens, heads) = (size("tokens"), size("heads"));
    let starts: Vec<u32> = numbers(&known, "starts").into_iter().map(|x| x as u32).collect();
    let counts = numbers(&known, "counts");
    let targets: Vec<u32> = counts.iter().map(|c| if *c > 0.0 { 0 } else { NONE }).collect();
    let (x, teacher) = (numbers(&known, "student"), numbers(&known, "teacher"));
    let rows: f32 = counts.iter().sum();
    // The mean over rows and heads, by the heads once more.
    let weight = 1.0 / (rows * (heads * heads) as f32);
    let loss = |x: &[f64]| {
        let relations = |x: &[f64], head: usize| {
            let wide = x.len() / tokens;
            let unit = |row: usize| {
                let x = &x[row * wide + head * (wide / heads)..][..wide / heads];
                let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
                x.iter().map(|x| x / length).collect::<Vec<f64>>()
            };
            let units: Vec<Vec<f64>> = (0..tokens).map(unit).collect();
            let score = |a: usize, b: usize| units[a].iter().zip(&units[b]).map(|(a, b)| a * b).sum::<f64>();
            (0..tokens)
                .map(|a| {
                    let same = (0..tokens).filter(|b| starts[*b] == starts[a]);
                    softmax(&same.map(|b| score(a, b)).collect::<Vec<_>>())
                })
                .collect::<Vec<_>>()
        };
        let mut total = 0.0;
        for head in 0..heads {
            let (p, q) = (relations(&wide(&teacher), head), relations(x, head));
            for row in (0..tokens).filter(|row| targets[*row] != NONE) {
                total += p[row].iter().zip(&q[row]).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
            }
        }
        total * f64::from(weight)
    };
    let slopes = differences(&x, loss);
    let want = wide(&numbers(&known, "gradient"));
    everywhere(|on| {
        let shape = Shape { heads, positions: tokens, starts: &starts, targets: &targets, weight };
        let mut dx = vec![0.5; x.len()];
        let sum = relation::both(on, shape, &x, &teacher, &mut dx);
        let found = sum * f64::from(weight);
        assert!((found - number(&known, "loss")).abs() < 1e-6, "{found}");
        // What was there stays.
        dx.iter_mut().for_each(|dx| *dx -= 0.5);
        assert_close("reference", &dx, &want, 1e-3);
        assert_close("slope", &dx, &slopes, 1e-3);
    });
}

#[test]
fn rounding_a_share_of_the_way_equals_the_reference() {
    let known = golden("warm");
    let (share, inputs) = (number(&known, "share") as f32, known["inputs"].as_u64().unwrap() as usize);
    let (x, w, g) = (numbers(&known, "x"), numbers(&known, "w"), numbers(&known, "g"));
    everywhere(|on| {
        let mut input = Input::partly(Quantiser::Matrix, share);
        let mut weight = linear::Weight::partly(Quantiser::Matrix, share);
        input.set(on, Rounding::Token, &x, inputs, None).unwrap();
        weight.prepare(on, &w, inputs, &mut Vec::new()).unwrap();
        let mut y = vec![0.0; g.len()];
        linear::forward(on, &mut input, [(&weight, &mut y)]);
        let (mut dx, mut dw, mut room) = (vec![f32::NAN; x.len()], vec![f32::NAN; w.len()], Room::default());
        room.begin(on, &input);
        room.backward(on, &input, &weight, &w, &g, &mut dw, &mut dx, false);
        for (key, got) in [("y", &y), ("dx", &dx), ("dw", &dw)] {
            assert_close(key, got, &wide(&numbers(&known, key)), 1e-5);
        }
        // All of the way, floats multiply to what codes and trits do.
        let (mut whole, mut exact) = (Input::partly(Quantiser::Matrix, 1.0), Input::new(Quantiser::Matrix));
        let mut rounded = linear::Weight::partly(Quantiser::Matrix, 1.0);
        let mut trits = linear::Weight::new(Quantiser::Matrix);
        let (mut a, mut b) = (vec![0.0; g.len()], vec![0.0; g.len()]);
        for (input, weight, out) in [(&mut whole, &mut rounded, &mut a), (&mut exact, &mut trits, &mut b)] {
            input.set(on, Rounding::Token, &x, inputs, None).unwrap();
            weight.prepare(on, &w, inputs, &mut Vec::new()).unwrap();
            linear::forward(on, input, [(&*weight, &mut out[..])]);
        }
        assert_close("whole", &a, &wide(&b), 1e-5);
    });
}
