//! Every operation's backward against finite differences, in f64, of a plain statement of its forward; quantisers are the
//! identity (the float twin), and have a golden of their own.

use serde_json::Value;
use tern_kernels::{Activation, Cpu, Intake, Pairing, Pool, Rounding};
use tern_train::ops::attention::{self, Saved, Shape};
use tern_train::ops::linear::{self, Input, Room, Weight};
use tern_train::ops::loss::{self, Back, NONE, RowLoss};
use tern_train::ops::quantiser::{Quantiser, to_f16};
use tern_train::ops::rope::{self, Angles, Heads};
use tern_train::ops::{Machine, bias, gate, norm};
use tern_train::random::Random;

const EPS: f32 = 1e-5;

fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    Random::new(seed, 9).normals(1.0, &mut out);
    out
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Runs `check` on every instruction set, with one thread and with three.
fn everywhere(check: impl Fn(Machine)) {
    for cpu in Cpu::available() {
        for threads in [1, 3] {
            check(Machine { cpu, pool: &Pool::new(threads) });
        }
    }
}

/// The gradient of `f` at `x` by central differences.
fn differences(x: &[f32], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = wide(x);
    (0..x.len())
        .map(|i| {
            let (at, step) = (x[i], 1e-5);
            x[i] = at + step;
            let above = f(&x);
            x[i] = at - step;
            let below = f(&x);
            x[i] = at;
            (above - below) / (2.0 * step)
        })
        .collect()
}

fn assert_close(what: &str, got: &[f32], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(1e-3f64, |top, x| top.max(x.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() < 3e-5 * scale, "{what}[{i}]: {got}, expected {want}");
    }
}

fn dot(a: &[f64], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum()
}

fn norm_rows(x: &[f64], w: &[f64]) -> Vec<f64> {
    let row = |x: &[f64]| {
        let r = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + f64::from(EPS)).sqrt();
        x.iter().zip(w).map(|(x, w)| x * r * w).collect::<Vec<_>>()
    };
    x.chunks(w.len()).flat_map(row).collect()
}

#[test]
fn norm() {
    for (rows, dim) in [(1, 3), (3, 20), (40, 7)] {
        let (x, w, g) = (values(1, rows * dim), values(2, dim), values(3, rows * dim));
        let by_x = differences(&x, |x| dot(&norm_rows(x, &wide(&w)), &g));
        let by_w = differences(&w, |w| dot(&norm_rows(&wide(&x), w), &g));
        everywhere(|on| {
            let mut y = vec![0.0; x.len()];
            norm::forward(on, &x, &w, EPS, &mut y);
            assert_close("y", &y, &norm_rows(&wide(&x), &wide(&w)));
            let (mut dx, mut dw) = (vec![f32::NAN; x.len()], vec![0.0; dim]);
            norm::backward(on, &x, &w, EPS, &g, &mut dx, false, &mut dw, &mut Vec::new());
            assert_close("dx", &dx, &by_x);
            assert_close("dw", &dw, &by_w);
        });
    }
}

#[test]
fn bias_of_rows() {
    for (rows, cols) in [(1, 3), (3, 20), (70, 7)] {
        let (x, b, g) = (values(1, rows * cols), values(2, cols), values(3, rows * cols));
        let forward = |b: &[f64]| -> Vec<f64> {
            wide(&x)
                .chunks(cols)
                .flat_map(|x| x.iter().zip(b).map(|(x, b)| x + b).collect::<Vec<_>>())
                .collect()
        };
        let by_b = differences(&b, |b| dot(&forward(b), &g));
        everywhere(|on| {
            let (mut y, mut db) = (x.clone(), vec![0.0; cols]);
            bias::forward(on, &b, &mut y);
            assert_close("y", &y, &forward(&wide(&b)));
            bias::backward(on, &g, &mut db, &mut Vec::new());
            assert_close("db", &db, &by_b);
        });
    }
}

#[test]
fn gate_and_its_norm() {
    let act = |act, x: f64| match act {
        Activation::Relu2 => x.max(0.0).powi(2),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => x / (1.0 + (-1.5957691216057308 * (x + 0.044715 * x.powi(3))).exp()),
    };
    for (kind, rows, hidden) in [
        (Activation::Relu2, 5, 33),
        (Activation::Silu, 70, 6),
        (Activation::GeluTanh, 3, 17),
        (Activation::Relu2, 1, 16),
    ] {
        for has_norm in [true, false] {
            let len = rows * hidden;
            let (gate, up, w, g) = (values(1, len), values(2, len), values(3, hidden), values(4, len));
            let forward = |gate: &[f64], up: &[f64], w: &[f64]| {
                let h: Vec<f64> = gate.iter().zip(up).map(|(gate, up)| act(kind, *gate) * up).collect();
                dot(&if has_norm { norm_rows(&h, w) } else { h }, &g)
            };
            let by_gate = differences(&gate, |gate| forward(gate, &wide(&up), &wide(&w)));
            let by_up = differences(&up, |up| forward(&wide(&gate), up, &wide(&w)));
            let by_w = differences(&w, |w| forward(&wide(&gate), &wide(&up), w));
            everywhere(|on| {
                let (mut gate, mut up, mut dw) = (gate.clone(), up.clone(), vec![0.0; hidden]);
                let norm = has_norm.then_some(gate::SubNorm { w: &w, eps: EPS });
                gate::backward(on, kind, hidden, &mut gate, &mut up, norm, &g, &mut dw, &mut Vec::new());
                assert_close("gate", &gate, &by_gate);
                assert_close("up", &up, &by_up);
                assert_close("w", &dw, &by_w);
            });
        }
    }
}

#[test]
fn rope_turns_back() {
    for pairing in [Pairing::Halves, Pairing::Neighbours] {
        let heads = Heads { count: 3, dim: 8, positions: 5 };
        let angles = Angles::new(&tern::Rope::new(10000.0, pairing), heads.dim, heads.positions);
        let len = 2 * heads.count * heads.dim * heads.positions;
        let (x, g) = (values(1, len), values(2, len));
        everywhere(|on| {
            // A rotation is orthogonal: its backward is its inverse, and <turn x, g> = <x, turn back g>.
            let (mut y, mut back, mut dx) = (vec![0.0; len], vec![0.0; len], vec![0.0; len]);
            rope::forward(on, heads, Some(&angles), &x, &mut y);
            rope::backward(on, heads, Some(&angles), &y, &mut back);
            assert_close("x", &back, &wide(&x));
            rope::backward(on, heads, Some(&angles), &g, &mut dx);
            assert!((dot(&wide(&y), &g) - dot(&wide(&x), &dx)).abs() < 1e-4);
            // And position 1 turns the first pair by one radian.
            let (a, b) = if pairing == Pairing::Halves { (0, 4) } else { (0, 1) };
            let (row, out) = (heads.count * heads.dim, heads.dim);
            let want = x[row + a] * 1f32.cos() - x[row + b] * 1f32.sin();
            assert!((y[out + a] - want).abs() < 1e-5);
        });
    }
}

#[test]
fn attention_within_documents() {
    let shape = Shape { kv: 2, group: 2, dim: 6, positions: 70 };
    let sequences = 2;
    let (width, kv_width) = (shape.kv * shape.group * shape.dim, shape.kv * shape.dim);
    let rows = sequences * shape.positions;
    let starts: Vec<u32> = (0..rows).map(|row| if row % 70 >= 20 && row >= 70 { 20 } else { 0 }).collect();
    let (q, k, v) = (values(1, rows * width), values(2, rows * kv_width), values(3, rows * kv_width));
    let g = values(4, rows * width); // (rows, heads * dim)
    let (positions, dim) = (shape.positions, shape.dim);
    // One query's output, in f64.
    let query = |q: &[f64], k: &[f64], v: &[f64], sequence: usize, head: usize, at: usize| {
        let kv = (sequence * shape.kv + head / shape.group) * positions * dim;
        let q = &q[((sequence * shape.kv * shape.group + head) * positions + at) * dim..][..dim];
        let seen = starts[sequence * positions + at] as usize..=at;
        let score =
            |j: usize| (0..dim).map(|d| q[d] * k[kv + j * dim + d]).sum::<f64>() / (dim as f64).sqrt();
        let weights: Vec<f64> = seen.clone().map(|j| score(j).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let out =
            |d: usize| seen.clone().zip(&weights).map(|(j, w)| w / sum * v[kv + j * dim + d]).sum::<f64>();
        (0..dim).map(out).collect::<Vec<f64>>()
    };
    let forward = |q: &[f64], k: &[f64], v: &[f64]| {
        let mut total = 0.0;
        for sequence in 0..sequences {
            for head in 0..shape.kv * shape.group {
                for at in 0..positions {
                    let g = &g[(sequence * positions + at) * width + head * dim..][..dim];
                    total += dot(&query(q, k, v, sequence, head, at), g);
                }
            }
        }
        total
    };
    // A few of the many numbers: differences of all would take minutes.
    let some = |len: usize| (0..len).step_by(len / 23);
    let by = |x: &[f32], f: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
        let wide = wide(x);
        let one = |i: usize, step: f64| {
            let mut x = wide.clone();
            x[i] += step;
            f(&x)
        };
        some(x.len()).map(|i| (one(i, 1e-5) - one(i, -1e-5)) / 2e-5).collect()
    };
    let (wq, wk, wv) = (wide(&q), wide(&k), wide(&v));
    let by_q = by(&q, &|q| forward(q, &wk, &wv));
    let by_k = by(&k, &|k| forward(&wq, k, &wv));
    let by_v = by(&v, &|v| forward(&wq, &wk, v));
    everywhere(|on| {
        let (mut o, mut lse) = (vec![0.0; q.len()], vec![0.0; rows * shape.kv * shape.group]);
        attention::forward(on, shape, &starts, &q, &k, &v, &mut o, &mut lse);
        for (sequence, head, at) in [(0, 0, 0), (1, 3, 69), (1, 2, 19), (1, 2, 20), (0, 1, 64)] {
            let got = &o[((sequence * shape.kv * shape.group + head) * positions + at) * dim..][..dim];
            assert_close("o", got, &query(&wq, &wk, &wv, sequence, head, at));
        }
        let mut by_rows = vec![0.0; o.len()];
        let heads = Heads { count: shape.kv * shape.group, dim, positions };
        rope::backward(on, heads, None, &o, &mut by_rows);
        let saved = Saved { q: &q, k: &k, v: &v, o: &by_rows, lse: &lse };
        let nan = |len: usize| vec![f32::NAN; len];
        let (mut dq, mut dk, mut dv) = (nan(q.len()), nan(k.len()), nan(v.len()));
        attention::backward(on, shape, &starts, saved, &g, &mut dq, &mut dk, &mut dv);
        for (what, got, want) in [("q", &dq, &by_q), ("k", &dk, &by_k), ("v", &dv, &by_v)] {
            let got: Vec<f32> = some(got.len()).map(|i| got[i]).collect();
            assert_close(what, &got, want);
        }
    });
}

#[test]
fn linear_of_the_float_twin() {
    check_floats([9, 21, 17], Rounding::Token.into());
}

#[test]
fn hadamard_before_a_linear() {
    for block in [1, 2, 8, 16] {
        check_floats([5, 48, 7], Intake { rounding: Rounding::Int4, block });
    }
}

/// A linear layer of floats, which are transformed and not rounded, by its definition and by differences.
fn check_floats([rows, inputs, outputs]: [usize; 3], intake: Intake) {
    let block = intake.block;
    let (x, w, g) = (values(1, rows * inputs), values(2, outputs * inputs), values(3, rows * outputs));
    // The matrix by its definition: an entry is -1 where the indices have an odd number of common bits.
    let turned = |x: &[f64]| -> Vec<f64> {
        let one = |x: &[f64], row: usize| {
            let signed = |(col, x): (usize, &f64)| if (row & col).count_ones() % 2 == 1 { -x } else { *x };
            x.iter().enumerate().map(signed).sum::<f64>() / (block as f64).sqrt()
        };
        x.chunks(block).flat_map(|x| (0..block).map(move |row| one(x, row))).collect()
    };
    let forward = |x: &[f64], w: &[f64]| {
        let turned = turned(x);
        let y = turned
            .chunks(inputs)
            .flat_map(|x| w.chunks(inputs).map(move |w| x.iter().zip(w).map(|(x, w)| x * w).sum()));
        dot(&y.collect::<Vec<f64>>(), &g)
    };
    let by_x = differences(&x, |x| forward(x, &wide(&w)));
    let by_w = differences(&w, |w| forward(&wide(&x), w));
    everywhere(|on| {
        let (mut input, mut weight) = (Input::new(Quantiser::Float), Weight::new(Quantiser::Float));
        input.set(on, intake, &x, inputs, None).unwrap();
        weight.prepare(on, &w, inputs, &mut Vec::new()).unwrap();
        let mut y = vec![0.0; rows * outputs];
        linear::forward(on, &mut input, [(&weight, &mut y)]);
        assert!((dot(&wide(&y), &g) - forward(&wide(&x), &wide(&w))).abs() < 1e-3);
        let (mut dx, mut dw, mut room) = (vec![f32::NAN; x.len()], vec![f32::NAN; w.len()], Room::default());
        room.begin(on, &input);
        room.backward(on, &input, &weight, &w, &g, &mut dw, &mut dx, false);
        on.hadamard(&mut dx, inputs, block);
        assert_close("dx", &dx, &by_x);
        assert_close("dw", &dw, &by_w);
    });
}

/// `W~` by the rule, in plain words.
fn rounded(w: &[f32], size: usize) -> Vec<f32> {
    let one = |group: &[f32]| {
        let mean = group.iter().map(|w| f64::from(w.abs())).sum::<f64>() / size as f64;
        let scale = to_f16((mean as f32).max(1e-5));
        group.iter().map(|w| (w / scale).round_ties_even().clamp(-1.0, 1.0) * scale).collect::<Vec<f32>>()
    };
    w.chunks(size).flat_map(one).collect()
}

#[test]
fn scales_by_group_and_row_are_straight_through_with_float_activations() {
    let (rows, inputs, outputs) = (5, 96, 17);
    let (x, mut w, g) = (values(1, rows * inputs), values(2, outputs * inputs), values(3, rows * outputs));
    // Groups of very different size, and one of zeros.
    w.chunks_mut(32).enumerate().for_each(|(nth, w)| w.iter_mut().for_each(|w| *w *= 0.1 * (nth % 7) as f32));
    for (quantiser, size) in [(Quantiser::Group(32), 32), (Quantiser::Row, inputs)] {
        let taken = rounded(&w, size);
        assert!(taken.contains(&0.0) && taken.iter().any(|w| *w < 0.0));
        let forward = |x: &[f64], w: &[f64]| {
            let y = x
                .chunks(inputs)
                .flat_map(|x| w.chunks(inputs).map(move |w| x.iter().zip(w).map(|(x, w)| x * w).sum()));
            dot(&y.collect::<Vec<f64>>(), &g)
        };
        // Straight through: the gradients are those at the rounded weights.
        let by_x = differences(&x, |x| forward(x, &wide(&taken)));
        let by_w = differences(&taken, |w| forward(&wide(&x), w));
        everywhere(|on| {
            let (mut trits, mut again) = (vec![0; w.len()], Vec::new());
            let scales = quantiser.trits(on, &w, inputs, &mut trits);
            for (at, (trit, want)) in trits.iter().zip(&taken).enumerate() {
                let scale = scales.at(at / inputs, at % inputs, inputs);
                assert_eq!(f32::from(*trit) * scale, *want, "{quantiser:?}, weight {at}");
            }
            assert!(quantiser.round(on, &w, inputs, &mut trits, &mut again) && again == taken);
            let (mut input, mut weight) = (Input::new(quantiser), Weight::new(quantiser));
            input.set(on, Rounding::Token, &x, inputs, None).unwrap();
            weight.prepare(on, &w, inputs, &mut Vec::new()).unwrap();
            let mut y = vec![0.0; rows * outputs];
            linear::forward(on, &mut input, [(&weight, &mut y)]);
            assert!((dot(&wide(&y), &g) - forward(&wide(&x), &wide(&taken))).abs() < 1e-3);
            let (mut dx, mut dw, mut room) =
                (vec![f32::NAN; x.len()], vec![f32::NAN; w.len()], Room::default());
            room.begin(on, &input);
            room.backward(on, &input, &weight, &w, &g, &mut dw, &mut dx, false);
            assert_close("dx", &dx, &by_x);
            assert_close("dw", &dw, &by_w);
        });
    }
    // A weight that is none is seen.
    w[40] = f32::NAN;
    let on = Machine { cpu: Cpu::best(), pool: &Pool::new(1) };
    for quantiser in [Quantiser::Matrix, Quantiser::Row, Quantiser::Group(32)] {
        let mut weight = Weight::new(quantiser);
        assert!(weight.prepare(on, &w, inputs, &mut Vec::new()).is_err(), "{quantiser:?}");
    }
}

#[test]
fn bitlinear_is_straight_through_as_the_reference_has_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/golden/bitlinear_grad.json");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let matrix = |key: &str| -> (usize, Vec<f32>) {
        let rows = json[key].as_array().unwrap();
        let flat = rows.iter().flat_map(|row| row.as_array().unwrap());
        (rows.len(), flat.map(|x| x.as_f64().unwrap() as f32).collect())
    };
    let ((rows, x), (_, w), (_, g)) = (matrix("x"), matrix("w"), matrix("gy"));
    let inputs = x.len() / rows;
    everywhere(|on| {
        let (mut input, mut weight) = (Input::new(Quantiser::Matrix), Weight::new(Quantiser::Matrix));
        input.set(on, Rounding::Token, &x, inputs, None).unwrap();
        weight.prepare(on, &w, inputs, &mut Vec::new()).unwrap();
        let mut y = vec![0.0; g.len()];
        linear::forward(on, &mut input, [(&weight, &mut y)]);
        let (mut dx, mut dw, mut room) = (vec![1.0; x.len()], vec![f32::NAN; w.len()], Room::default());
        room.begin(on, &input);
        room.backward(on, &input, &weight, &w, &g, &mut dw, &mut dx, true);
        dx.iter_mut().for_each(|d| *d -= 1.0);
        // Gradients go in with 15 bits of their row's largest.
        for (key, got, slack) in [("y", &y, 2e-6), ("dx", &dx, 2e-4), ("dw", &dw, 2e-4)] {
            let want = matrix(key).1;
            let scale = want.iter().fold(0f32, |top, x| top.max(x.abs()));
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= slack * scale, "{key}: {got}, expected {want}");
            }
        }
    });
}

#[test]
fn head_and_cross_entropy() {
    let (rows, dim, vocab) = (300, 5, 37);
    let (x, e) = (values(1, rows * dim), values(2, vocab * dim));
    let targets: Vec<u32> =
        (0..rows).map(|row| if row % 5 == 3 { NONE } else { (row * 7 % vocab) as u32 }).collect();
    let row_loss = |x: &[f64], e: &[f64], row: usize| {
        let logit = |token: usize| (0..dim).map(|d| x[row * dim + d] * e[token * dim + d]).sum::<f64>();
        let sum: f64 = (0..vocab).map(|token| logit(token).exp()).sum();
        if targets[row] == NONE { 0.0 } else { sum.ln() - logit(targets[row] as usize) }
    };
    let forward = |x: &[f64], e: &[f64]| 0.5 * (0..rows).map(|row| row_loss(x, e, row)).sum::<f64>();
    let by_e = differences(&e, |e| forward(&wide(&x), e));
    let (wx, we) = (wide(&x), wide(&e));
    let by_x: Vec<f64> = (0..x.len())
        .map(|i| {
            let mut x = wx.clone();
            x[i] += 1e-5;
            let above = row_loss(&x, &we, i / dim);
            x[i] -= 2e-5;
            0.5 * (above - row_loss(&x, &we, i / dim)) / 2e-5
        })
        .collect();
    everywhere(|on| {
        let mut room = loss::Room::default();
        room.prepare(on, &e, dim);
        let (mut dx, mut de, mut out) =
            (vec![0.0; x.len()], vec![0.0; e.len()], vec![RowLoss::default(); rows]);
        let back = Back { e: &e, factor: 0.5, dx: &mut dx, de: Some(&mut de), weights: None, lesson: None };
        room.run(on, &x, dim, &targets, &mut out, Some(back));
        let losses: Vec<f32> = out.iter().map(|row| row.loss).collect();
        let want: Vec<f64> = (0..rows).map(|row| row_loss(&wx, &we, row)).collect();
        assert_close("loss", &losses, &want);
        assert_close("dx", &dx, &by_x);
        assert_close("de", &de, &by_e);
    });
}

/// Floats that stand in a file as the integers of their bits.
fn from_bits(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|bits| f32::from_bits(bits.as_u64().unwrap() as u32)).collect()
}

#[test]
fn fewer_bits_are_straight_through_as_pytorch_has_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/golden/fewer_bits.json");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let layers = json["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 4);
    for layer in layers {
        let rounding = match layer["rounding"].as_str().unwrap() {
            "int4" => Rounding::Int4,
            "top" => Rounding::TopHalf,
            "int8" => Rounding::Token,
            other => panic!("{other}"),
        };
        let block = layer["block"].as_u64().unwrap() as usize;
        let inputs = layer["inputs"].as_u64().unwrap() as usize;
        let [x, w, g] = ["x", "w", "g"].map(|key| from_bits(&layer[key]));
        everywhere(|on| {
            let (mut input, mut weight) = (Input::new(Quantiser::Matrix), Weight::new(Quantiser::Matrix));
            input.set(on, Intake { rounding, block }, &x, inputs, None).unwrap();
            weight.prepare(on, &w, inputs, &mut Vec::new()).unwrap();
            let mut y = vec![0.0; g.len()];
            linear::forward(on, &mut input, [(&weight, &mut y)]);
            let (mut dx, mut dw, mut room) = (vec![0.0; x.len()], vec![f32::NAN; w.len()], Room::default());
            room.begin(on, &input);
            room.backward(on, &input, &weight, &w, &g, &mut dw, &mut dx, false);
            on.hadamard(&mut dx, inputs, block);
            // Gradients go in with 15 bits of their row's largest.
            for (key, got, slack) in [("y", &y, 2e-6), ("dx", &dx, 2e-4), ("dw", &dw, 2e-4)] {
                let want = from_bits(&layer[key]);
                let scale = want.iter().fold(0f32, |top, x| top.max(x.abs()));
                for (got, want) in got.iter().zip(&want) {
                    assert!(
                        (got - want).abs() <= slack * scale,
                        "{rounding:?} {key}: {got}, expected {want}"
                    );
                }
            }
        });
    }
}
