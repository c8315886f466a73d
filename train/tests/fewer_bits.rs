//! BitNet a4.8 and v2: runs go on exactly, in one stage and in two, and what was trained is what runs.

mod common;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use common::{compare, convert_from, folder, numbers, run};
use tern::file::OpenOptions;
use tern::{Head, KvFormat, Model, Options, Rounding, Scheme};
use tern_convert::{ConvertOptions, Target};
use tern_kernels::{Cpu, Pool};
use tern_train::check::check;
use tern_train::config::Run;
use tern_train::export;
use tern_train::network::{Batch, Gradients, Network};
use tern_train::ops::Machine;
use tern_train::ops::loss::RowLoss;
use tern_train::ops::quantiser::Quantiser;
use tern_train::ops::rope::Angles;
use tern_train::params::Layout;
use tern_train::random::Random;
use tern_train::run::{End, Event, train};
use tern_train::stages::Stages;

/// What each scheme asks of a run: the two stages where it has them.
const SCHEMES: [(&str, &str); 5] = [
    ("a4.8", "a8_steps = 5"),
    ("a4.8", "activation = \"silu\"\nsequences = 2"),
    ("v2-a8", "activation = \"silu\""),
    ("v2-a4", "a8_steps = 5"),
    ("a4", ""),
];

/// Runs until this step, or to the end.
fn until(run: &Run, stop: u64) -> End {
    let seen = Cell::new(0);
    train(run, &|| seen.get() >= stop, &mut |event| {
        if let Event::Step(step) = event {
            seen.set(step.step);
        }
    })
    .unwrap()
}

/// A run and its model, after the same run in three pieces has come to the same numbers.
fn whole_and_in_pieces(dir: &Path, nth: usize, text: &str) -> (Run, PathBuf) {
    let whole = run(dir, &format!("{nth}"), text);
    let End::Done(model) = until(&whole, u64::MAX) else { panic!() };
    let again = run(dir, &format!("{nth}-again"), &format!("{text}\nthreads = 1\nrecompute = true"));
    for stop in [3, 6] {
        assert!(matches!(until(&again, stop), End::Stopped(_)));
    }
    until(&again, u64::MAX);
    assert_eq!(numbers(&again.out), numbers(&whole.out), "{text}");
    (whole, model)
}

#[test]
fn what_was_trained_is_what_runs_and_runs_go_on_exactly() {
    let dir = folder();
    for (nth, (scheme, more)) in SCHEMES.into_iter().enumerate() {
        let text = format!("activations = \"{scheme}\"\nsteps = 8\n{more}");
        let (whole, model) = whole_and_in_pieces(dir.path(), nth, &text);

        let opened = Model::open(&model, &Options::default()).unwrap();
        assert_eq!((opened.activations(), opened.config().graph.scheme.name()), (scheme, scheme));
        let convert = |to: Target| {
            convert_from(&model, dir.path(), &format!("{nth}-{}", to.name()), &ConvertOptions::new(to))
        };
        for path in [model.clone(), convert(Target::I2), convert(Target::T5)] {
            let found = compare(&whole, &path).unwrap();
            assert_eq!((found.step, found.recorded), (8, Some(found.unrounded)), "{found:?}");
            assert!((found.engine - found.trainer).abs() < 1e-6 && found.others == 0, "{scheme}: {found:?}");
            // With other activations it is another model: the comparison can fail.
            let options = Options {
                head: Head::Stored,
                kv: KvFormat::F32,
                activations: Some(Rounding::None),
                ..Options::default()
            };
            let file = tern::file::open(&path, OpenOptions::default()).unwrap();
            let other =
                check(&whole, &file, &Model::from_file(&file, &options).unwrap(), &mut |_| {}).unwrap();
            assert!((other.engine - other.trainer).abs() > 1e-6, "{scheme}: {other:?}");
        }
        // No other program would know.
        for to in [Target::I2S, Target::Tq2_0, Target::Hf] {
            let out = dir.path().join("no");
            let error = tern_convert::convert(&model, &out, &ConvertOptions::new(to), &mut |_, _| {});
            let error = error.unwrap_err().to_string();
            assert!(error.contains(&format!("activations ({scheme}) no other program computes")), "{error}");
            assert!(!out.exists());
        }
        // Who goes on from it does so with its activations.
        let from = format!("from = \"{}\"\nrate = 0.0\nsteps = 1\nwarmup = 0", model.display());
        let tuned = run(dir.path(), &format!("{nth}-tuned"), &from);
        let End::Done(tuned) = until(&tuned, u64::MAX) else { panic!() };
        assert_eq!(Model::open(&tuned, &Options::default()).unwrap().activations(), scheme);
    }
}

/// Keys and values as a cache keeps them: the engine with that cache says what the trainer says, and with another something else.
#[test]
fn a_model_is_trained_for_the_cache_that_it_runs_with() {
    let dir = folder();
    // What the engine rounds besides, queries and weights of values, moves the loss by less than a third of what the cache does.
    let two_stages = "a8_steps = 5\nactivations = \"v2-a4\"";
    for (nth, (kv, more, near)) in
        [("q4", two_stages, 1e-5), ("q4:q3", "", 1e-5), ("q3", "", 1e-5)].into_iter().enumerate()
    {
        let text = format!("kv = \"{kv}\"\nsteps = 8\n{more}");
        let (whole, model) = whole_and_in_pieces(dir.path(), nth, &text);
        let plain = Run { kv: None, ..whole.clone() };
        let with = compare(&whole, &model).unwrap();
        let without = compare(&plain, &model).unwrap();
        assert_eq!(with.recorded, Some(with.unrounded), "{kv}");
        assert!((with.engine - with.trainer).abs() < near, "{kv}: {with:?}");
        assert!((with.trainer - without.trainer).abs() > 3.0 * near, "{kv}: {with:?}, {without:?}");
    }
}

/// A run that ended in its first stage was not rounded for the cache yet; both sides of the comparison are all the same.
#[test]
fn the_comparison_uses_one_cache_in_the_first_stage_too() {
    let dir = folder();
    let first = run(dir.path(), "first", "kv = \"q3\"\nactivations = \"a4.8\"\na8_steps = 5\nsteps = 8");
    assert!(matches!(until(&first, 3), End::Stopped(_)));
    let model = dir.path().join("model");
    assert_eq!(export::latest(&first, &model, &mut |_| {}).unwrap(), 3);
    let with = compare(&first, &model).unwrap();
    let without = compare(&Run { kv: None, ..first }, &model).unwrap();
    assert!((with.engine - with.trainer).abs() < 1e-5, "{with:?}");
    assert!((with.trainer - without.trainer).abs() > 3e-5, "{with:?}, {without:?}");
}

#[test]
fn two_stages_in_one_run_are_a_run_in_eight_bits_that_goes_on() {
    let dir = folder();
    let both = run(dir.path(), "both", "activations = \"a4.8\"\na8_steps = 6");
    let want = until(&both, u64::MAX);
    // In eight bits to the same place of the same schedule, then on with the optimiser's state.
    let first = run(dir.path(), "first", "");
    assert!(matches!(until(&first, 6), End::Stopped(_)));
    let mut second = first.clone();
    second.activations = Some("a4.8".into());
    let mut changes = Vec::new();
    let end = train(&second, &|| false, &mut |event| {
        if let Event::Note(note) = event {
            changes.push(note);
        }
    });
    let weights = |end: End| {
        let End::Done(model) = end else { panic!("{end:?}") };
        fs::read(model.join("model.safetensors")).unwrap()
    };
    assert!(weights(end.unwrap()) == weights(want));
    assert!(
        changes.contains(&"`activations` is \"a4.8\" from here on, it was nothing".to_owned()),
        "{changes:?}"
    );
    // And the second stage is another than the first.
    let eight = run(dir.path(), "eight", "");
    until(&eight, u64::MAX);
    let (eight, both) = (numbers(&eight.out), numbers(&both.out));
    assert_eq!(eight[..7], both[..7]);
    assert_ne!(eight[7], both[7]);
}

#[test]
fn what_cannot_be_trained_so_is_refused_by_its_key() {
    let dir = folder();
    let bare = run(dir.path(), "bare", "activations = \"v2-a4\"\nsub_norms = false");
    let error = train(&bare, &|| false, &mut |_| {}).unwrap_err().to_string();
    assert_eq!(error, "key `activations`: v2-a4 needs the norms of `sub_norms`, and the model has none");
    // A run is compared with a model of its own activations only.
    let a8 = run(dir.path(), "a8", "steps = 2");
    let End::Done(model) = until(&a8, u64::MAX) else { panic!() };
    let mut a48 = a8.clone();
    a48.activations = Some("a4.8".into());
    let error = compare(&a48, &model).unwrap_err().to_string();
    assert_eq!(error, "the model has activations of a8, the run of a4.8");
}

/// The gradient of the whole float twin, in which v2's transforms are all that a scheme leaves, along itself.
#[test]
fn transforms_of_the_whole_twin_have_their_gradient() {
    let dir = folder();
    let mut config = run(dir.path(), "x", "").model(67).unwrap();
    config.graph.scheme = Scheme::V2A4;
    let layout = Layout::new(&config, true);
    let params = layout.initial(0.2, 3);
    let mut random = Random::new(5, 1);
    let tokens: Vec<u32> = (0..48).map(|_| random.below(67) as u32).collect();
    let (targets, starts) =
        (tokens.iter().map(|token| (token * 7 + 3) % 67).collect::<Vec<_>>(), vec![0; 48]);
    let pool = Pool::new(1);
    let on = Machine { cpu: Cpu::best(), pool: &pool };
    let angles = Angles::new(&config.rope, config.head_dim, 24);
    let mut network = Network::new(&config, &layout, angles, Quantiser::Float, false);
    let loss = |network: &mut Network, params: &[f32], back: Option<Gradients>| {
        let mut losses = vec![RowLoss::default(); 48];
        let batch = Batch { tokens: &tokens, targets: &targets, starts: &starts };
        network.prepare(on, params).unwrap();
        network.run(on, params, batch, &mut losses, back).unwrap();
        losses.iter().map(|row| f64::from(row.loss)).sum::<f64>()
    };
    let mut gradient = vec![0.0; params.len()];
    let plain = loss(
        &mut network,
        &params,
        Some(Gradients { values: &mut gradient, factor: 1.0, weights: None, lesson: None }),
    );
    let squares: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
    let step = 2e-3 / squares.sqrt();
    let moved = |params: &[f32], by: f64| -> Vec<f32> {
        params.iter().zip(&gradient).map(|(p, g)| p + (by * f64::from(*g)) as f32).collect()
    };
    let (above, below) = (moved(&params, step), moved(&params, -step));
    let slope = (loss(&mut network, &above, None) - loss(&mut network, &below, None)) / (2.0 * step);
    assert!((slope / squares - 1.0).abs() < 2e-3, "{slope}, expected {squares}");
    // The twin without transforms is another function.
    network.set_stage(Stages { last: Scheme::A48, ..Stages::default() }, 1);
    assert!((loss(&mut network, &params, None) - plain).abs() > 1e-3);
}
