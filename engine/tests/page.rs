//! A small model gives its known answers (testdata/models/page/answers.json, computed by code that shares nothing with the
//! engine), on every instruction set and packing.

use std::path::Path;

use serde_json::Value;
use tern::{Generation, Head, Logits, Model, Options, Row, Sampling, Scratch, Sequence, Specials, Stop};
use tern_kernels::{Cpu, KvFormat, Packing};

fn answers() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/models/page/answers.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// One model for each instruction set and packing.
fn models(head: Head) -> impl Iterator<Item = Model> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/models/page/page.gguf");
    Cpu::available().into_iter().flat_map(|cpu| Packing::ALL.map(|packing| (cpu, packing))).map(
        move |(cpu, packing)| {
            let options = Options {
                cpu: Some(cpu.name().to_owned()),
                packing: Some(packing),
                threads: Some(2),
                head,
                kv: KvFormat::F32,
                ..Options::default()
            };
            Model::open(&page, &options).unwrap()
        },
    )
}

#[test]
fn page_answers_as_it_was_taught() {
    let answers = answers();
    for model in models(Head::Int8) {
        let tokenizer = model.tokenizer().unwrap();
        let best = model.cpu_name() == Cpu::best().name() && model.packing() == Packing::I2;
        // Everything on the best kernels; on the others the short answers, for the test to be quick.
        let short = |answer: &&Value| best || ids(&answer["ids"]).len() < 20;
        for answer in answers["answers"].as_array().unwrap().iter().filter(short) {
            let prompt = answer["prompt"].as_str().unwrap();
            assert_eq!(
                tokenizer.encode(prompt, true, Specials::Parse).unwrap(),
                ids(&answer["prompt_ids"]),
                "{prompt}"
            );
            let mut generation = Generation::new(&model, model.config().context, Sampling::greedy()).unwrap();
            generation.prompt(&ids(&answer["prompt_ids"])).unwrap();
            let mut got = Vec::new();
            while let Some(token) = generation.next().unwrap() {
                got.push(token.id);
            }
            let Some(Stop::Token(stop)) = generation.stopped() else { panic!("`{prompt}` has no end") };
            let want = ids(&answer["ids"]);
            let (last, body) = want.split_last().unwrap();
            assert_eq!(
                (&got[..], stop),
                (body, *last),
                "{prompt} on {} {}",
                model.cpu_name(),
                model.packing().name()
            );
            assert_eq!(tokenizer.decode(&got, false), answer["text"].as_str().unwrap());
        }
    }
}

#[test]
fn the_logits_of_a_short_prompt_are_the_known_ones() {
    let known = &answers()["logits"];
    let want: Vec<f64> = known["last"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    for model in models(Head::Stored) {
        let ids = ids(&known["ids"]);
        let rows: Vec<Row> = (1..)
            .zip(&ids)
            .map(|(n, &token)| Row {
                sequence: 0,
                token,
                logits: if n == ids.len() { Logits::All } else { Logits::None },
            })
            .collect();
        let mut sequences = [Sequence::new(&model, 8)];
        let mut scratch = Scratch::default();
        let got = model.forward(&mut scratch, &mut sequences, &rows).unwrap();
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            assert!((f64::from(*got) - want).abs() < 1e-4, "{got} {want}");
        }
    }
}

#[test]
fn what_must_not_end_yet_goes_on_with_the_likeliest_other_token() {
    let answers = answers();
    let known = answers["answers"].as_array().unwrap().iter();
    let known = known.map(|known| (ids(&known["prompt_ids"]), ids(&known["ids"])));
    let (prompt, said) = known.min_by_key(|(prompt, said)| prompt.len() + said.len()).unwrap();
    let (stop, said) = said.split_last().unwrap();
    let whole: Vec<u32> = prompt.iter().chain(said).copied().collect();
    let mut others = Vec::new();
    for model in models(Head::Int8) {
        let begin = || Generation::new(&model, 512, Sampling::greedy()).unwrap();
        let next = |mut generation: Generation<'_>| {
            generation.prompt(&whole).unwrap();
            (generation.next().unwrap().map(|token| token.id), generation.stopped())
        };
        assert_eq!(next(begin()), (None, Some(Stop::Token(*stop))));
        let (other, stopped) = next(begin().with_least(1));
        assert!(other.is_some() && other != Some(*stop) && stopped.is_none());
        // The few logits that a greedy choice computes are enough to know the second likeliest.
        assert_eq!(next(begin().with_logprobs().with_least(1)).0, other);
        others.push(other);

        // One token later it may end; a new prompt counts anew.
        let mut generation = begin().with_least(2);
        for _ in 0..2 {
            generation.prompt(&whole).unwrap();
            assert!(generation.next().unwrap().is_some() && generation.next().unwrap().is_some());
        }
    }
    assert!(others.iter().all(|other| *other == others[0]), "{others:?}");
}

#[test]
fn settings_can_change_in_the_middle_of_a_text() {
    let model = models(Head::Int8).next().unwrap();
    let prompt = ids(&answers()["answers"][0]["prompt_ids"]);
    let hot = Sampling { temperature: 5.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 3, ..Sampling::default() };
    let write = |first: Sampling, then: Option<Sampling>| {
        let mut generation = Generation::new(&model, 512, first).unwrap();
        if let Some(then) = then {
            generation.set_sampling(then).unwrap();
        }
        generation.prompt(&prompt).unwrap();
        (0..8).map(|_| generation.next().unwrap().map(|token| token.id)).collect::<Vec<_>>()
    };
    assert_eq!(write(Sampling::greedy(), Some(hot.clone())), write(hot.clone(), None));
    assert_eq!(write(hot, Some(Sampling::greedy())), write(Sampling::greedy(), None));
    let mut generation = Generation::new(&model, 512, Sampling::greedy()).unwrap();
    assert!(generation.set_sampling(Sampling { temperature: -1.0, ..Sampling::greedy() }).is_err());
}
