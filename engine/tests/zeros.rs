//! What is left out behind closed gates changes no bit: alone, with guesses, in batches, on every instruction set, packing and
//! number of threads.

mod golden;

use std::time::Duration;

use golden::{Golden, bits, golden, open};
use tern::{
    Batch, Bounds, Cpu, Drafts, Generation, Job, KvFormat, Logits, Model, Options, Output, Packing, Rounding,
    Row, Sampling, Scratch, Sequence, UnitReads, Zeros,
};

/// Those with ReLU².
const CLOSING: [&str; 2] = ["bitnet_online_bf16", "bitnet_packed_autobitlinear"];

/// The logits after each of the ids, which pass one at a time, and what was read; the first three pass together.
fn one_by_one(model: &Model, ids: &[u32]) -> Vec<(Vec<u32>, UnitReads)> {
    let (mut scratch, mut sequence) = (Scratch::default(), [Sequence::new(model, ids.len())]);
    let row = |&token| Row { sequence: 0, token, logits: Logits::All };
    let rows: Vec<Row> = ids.iter().map(row).collect();
    let (first, rest) = rows.split_at(3);
    let mut all =
        vec![(bits(model.forward(&mut scratch, &mut sequence, first).unwrap()), scratch.unit_reads())];
    for row in rest {
        let logits = bits(model.forward(&mut scratch, &mut sequence, &[*row]).unwrap());
        all.push((logits, scratch.unit_reads()));
    }
    all
}

#[test]
fn no_logit_changes_on_any_set_packing_or_number_of_threads() {
    for name in CLOSING {
        let ids = Golden::open(name).ids("greedy_from_first_5");
        for kv in KvFormat::ALL {
            let base = Options { kv, zeros: Zeros::Read, ..Options::default() };
            let want = one_by_one(&open(&golden(name), base.clone()), &ids);
            assert_eq!(want[0].1, UnitReads::default(), "three tokens");
            for cpu in Cpu::available() {
                for packing in Packing::ALL {
                    for threads in [1, 2, 3] {
                        let cpu = Some(cpu.name().to_owned());
                        let (threads, packing) = (Some(threads), Some(packing));
                        let options = Options { cpu, threads, packing, zeros: Zeros::Skip, ..base.clone() };
                        let model = open(&golden(name), options.clone());
                        let got = one_by_one(&model, &ids);
                        assert!(model.unit_bytes() > 0, "{name}: nothing was copied");
                        for ((got, reads), (want, read)) in got.iter().zip(&want) {
                            assert!(got == want, "{name} {options:?}");
                            assert_eq!(UnitReads { unread: 0, ..*reads }, *read, "{name} {options:?}");
                            assert!(reads.closed <= reads.zeros && reads.zeros <= reads.units);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_built_in_model_reads_less_and_writes_the_same() {
    let story =
        |zeros, packing| Model::story(&Options { zeros, packing, threads: Some(2), ..Options::default() });
    let ids: Vec<u32> = (0..40).map(|at| at * 37 % 1000).collect();
    let want = one_by_one(&story(Zeros::Read, None).unwrap(), &ids);
    for packing in Packing::ALL {
        let model = story(Zeros::Skip, Some(packing)).unwrap();
        let got = one_by_one(&model, &ids);
        assert!(got.iter().zip(&want).all(|(got, want)| got.0 == want.0), "{packing:?}");
        let config = model.config();
        let (_, reads) = got.last().unwrap();
        assert_eq!(reads.units, (config.layers * config.hidden) as u64);
        // Trained: more than half of the gates are closed.
        assert!(reads.closed > reads.units / 2 && reads.unread > 0, "{reads:?}");
        assert!(reads.unread < model.unit_bytes(), "{reads:?}");
    }
    // By itself, after a hundred tokens: no text depends on when, or whether.
    let write = |zeros| {
        let model = story(zeros, None).unwrap();
        let sampling = Sampling { temperature: 0.8, seed: 4, ..Sampling::default() };
        let mut generation = Generation::new(&model, 400, sampling).unwrap().with_least(200);
        generation.prompt(&ids[..3]).unwrap();
        assert!(zeros != Zeros::Auto || !model.zeros_settled());
        (0..200).for_each(|_| assert!(generation.next().unwrap().is_some()));
        assert!(model.zeros_settled(), "{zeros:?}");
        assert_eq!(model.unit_bytes() > 0, zeros != Zeros::Read);
        generation.tokens().to_vec()
    };
    let want = write(Zeros::Read);
    assert!(write(Zeros::Auto) == want && write(Zeros::Skip) == want);
}

#[test]
fn guesses_and_batches_are_the_same_beside_it() {
    let name = CLOSING[1];
    let start = Golden::open(name).ids("greedy_from_first_5");
    let prompts = [[&start[..], &start].concat(), start[..4].to_vec(), start[2..3].to_vec()];
    let run = |zeros, drafts| {
        let model = open(&golden(name), Options { zeros, ..Options::default() });
        let bounds = Bounds { parallel: 3, context: 60, pages: 9, pause: Duration::from_millis(100) };
        let mut batch = Batch::new(&model, bounds).unwrap().with_drafts(drafts);
        let mut tokens = vec![Vec::new(); 3];
        // Two together, and the third alone after them.
        for round in [0..2, 2..3] {
            let add = |nth: usize| {
                let job = Job::new(prompts[nth].clone(), Sampling { seed: 3, ..Sampling::default() }, 12);
                (batch.add(&model, Job { ignore_stops: true, ..job }).unwrap(), nth)
            };
            let tickets: Vec<_> = round.map(add).collect();
            while !batch.is_idle() {
                for (ticket, output) in batch.step(&model, |_| true) {
                    let (_, nth) = tickets.iter().find(|(known, _)| *known == ticket).unwrap();
                    if let Output::Token(scored) = output {
                        tokens[*nth].push(scored);
                    }
                }
            }
        }
        assert!(tokens.iter().all(|tokens| tokens.len() == 12));
        tokens
    };
    let always = Drafts { tokens: 7, always: true };
    let want = run(Zeros::Read, Drafts::NONE);
    for (zeros, drafts) in [(Zeros::Skip, Drafts::NONE), (Zeros::Skip, always), (Zeros::Auto, always)] {
        assert!(run(zeros, drafts) == want, "{zeros:?}");
    }
}

#[test]
fn models_that_do_not_suit_hold_no_copies() {
    let ids = Golden::open("llama_packed_bitlinear").ids("greedy_from_first_5");
    let skip = || Options { zeros: Zeros::Skip, ..Options::default() };
    let model = open(&golden("llama_packed_bitlinear"), skip());
    assert_eq!(one_by_one(&model, &ids).last().unwrap().1, UnitReads::default());
    assert_eq!((model.unit_bytes(), model.zeros_settled()), (0, true));
    for activations in [Rounding::Group, Rounding::None] {
        let ids = Golden::open(CLOSING[0]).ids("greedy_from_first_5");
        let options = Options { activations: Some(activations), ..skip() };
        let model = open(&golden(CLOSING[0]), options.clone());
        let want = one_by_one(&open(&golden(CLOSING[0]), Options { zeros: Zeros::Read, ..options }), &ids);
        assert_eq!(one_by_one(&model, &ids), want);
        assert_eq!(model.unit_bytes(), 0, "{activations:?}");
    }
}
