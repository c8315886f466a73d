//! What a batch promises: every job's tokens are those it would have alone, whatever happens around it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tern::{
    Batch, Bounds, Dry, Finish, Generation, Guide, Job, KvFormat, Logits, Model, Options, Output, Row,
    Sampling, Scored, Scratch, Sequence, Specials, Ticket,
};

fn bounds() -> Bounds {
    Bounds { parallel: 8, context: 512, pages: 64, pause: Duration::from_millis(100) }
}

fn model() -> Model {
    kept(KvFormat::F16)
}

/// The caches that batches are tried with: floats, and codes packed over many positions beside a first token of their own.
fn caches() -> [KvFormat; 2] {
    [KvFormat::F16, KvFormat::from_name("q4:q3").unwrap()]
}

fn kept(kv: KvFormat) -> Model {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/models/page/page.gguf");
    Model::open(&page, &Options { threads: Some(2), kv, ..Options::default() }).unwrap()
}

/// What became of one job.
#[derive(Debug, Default, PartialEq, Clone)]
struct Told {
    cached: usize,
    prompt: Vec<Scored>,
    tokens: Vec<Scored>,
    done: Option<Finish>,
}

impl Told {
    fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|scored| scored.id).collect()
    }
}

type Tale = BTreeMap<Ticket, Told>;

fn note(tale: &mut Tale, outputs: Vec<(Ticket, Output)>) {
    for (ticket, output) in outputs {
        let told = tale.entry(ticket).or_default();
        assert_eq!(told.done, None, "nothing comes after the end");
        match output {
            Output::Reading { .. } | Output::Drafted(_) => {}
            Output::Read { cached, scored } => (told.cached, told.prompt) = (cached, scored),
            Output::Token(scored) => told.tokens.push(scored),
            Output::Done(finish) => told.done = Some(finish),
        }
    }
}

fn finish(batch: &mut Batch, model: &Model, tale: &mut Tale) {
    for _ in 0..20_000 {
        if batch.is_idle() {
            return;
        }
        let load = batch.load();
        assert!(load.pages_used + load.pages_kept <= load.pages, "{load:?}");
        let outputs = batch.step(model, |_| true);
        note(tale, outputs);
    }
    panic!("it goes on and on: {:?}", batch.load());
}

fn alone(model: &Model, prompt: &[u32], sampling: &Sampling, most: usize) -> Vec<u32> {
    let mut generation = Generation::new(model, 512, sampling.clone()).unwrap();
    generation.prompt(prompt).unwrap();
    std::iter::from_fn(|| generation.next().unwrap().map(|token| token.id)).take(most).collect()
}

fn prompts(model: &Model) -> Vec<Vec<u32>> {
    let tokenizer = model.tokenizer().unwrap();
    let long = "The bird looked at the sea and the sea looked back. ".repeat(24);
    let texts = [
        "Once upon a time",
        "The bird",
        &long,
        &format!("{long}And then"),
        "A",
        &long[7..],
        &long[20..900],
        &long[9..850],
    ];
    texts.iter().map(|text| tokenizer.encode(text, true, Specials::Text).unwrap()).collect()
}

/// Greedy and seeded settings, with penalties too.
fn samplings() -> Vec<Sampling> {
    vec![
        Sampling::greedy(),
        Sampling { temperature: 1.5, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 5, ..Sampling::default() },
        Sampling { seed: 6, ..Sampling::default() },
        Sampling { presence_penalty: 1.0, frequency_penalty: 0.5, temperature: 1.0, ..Sampling::default() },
        Sampling {
            typical: 0.4,
            dry: Dry { multiplier: 1.5, allowed: 1, ..Dry::default() },
            ..Sampling::default()
        },
    ]
}

#[test]
fn every_job_gets_its_own_text_in_any_company() {
    caches().into_iter().for_each(own_texts_in_any_company);
}

fn own_texts_in_any_company(kv: KvFormat) {
    let model = kept(kv);
    let mut wanted = Vec::new();
    for prompt in prompts(&model) {
        for sampling in samplings() {
            let text = alone(&model, &prompt, &sampling, 24);
            wanted.push((prompt.clone(), sampling, text));
        }
    }
    let mut batch = Batch::new(&model, bounds()).unwrap();
    let mut tale = Tale::new();
    let mut tickets = Vec::new();
    let mut left = Vec::new();
    for (n, (prompt, sampling, _)) in wanted.iter().enumerate() {
        tickets.push(batch.add(&model, Job::new(prompt.clone(), sampling.clone(), 24)).unwrap());
        let cancelled = batch.add(&model, Job::new(prompt.clone(), sampling.clone(), 200)).unwrap();
        left.push(cancelled);
        for _ in 0..n % 5 {
            let outputs = batch.step(&model, |ticket| ticket.cmp(&cancelled).is_ne() || n % 2 == 0);
            note(&mut tale, outputs);
        }
        if n % 3 == 0 {
            batch.cancel(left.remove(0));
        }
    }
    left.into_iter().for_each(|ticket| batch.cancel(ticket));
    finish(&mut batch, &model, &mut tale);
    let mut hits = 0;
    for (ticket, (_, sampling, text)) in tickets.iter().zip(&wanted) {
        let told = &tale[ticket];
        assert_eq!(&told.ids(), text, "{sampling:?}");
        assert!(matches!(told.done, Some(Finish::Length | Finish::Stop(_))), "{:?}", told.done);
        hits += usize::from(told.cached > 0);
    }
    assert!(hits > 6, "{hits} found a known beginning");
    assert_eq!(batch.load().pages_used, 0);
}

#[test]
fn who_gives_pages_up_says_the_same() {
    caches().into_iter().for_each(the_same_after_giving_pages_up);
}

fn the_same_after_giving_pages_up(kv: KvFormat) {
    let model = kept(kv);
    let prompts = prompts(&model);
    let greedy = Sampling::greedy();
    let roomy: Vec<_> = prompts.iter().map(|prompt| alone(&model, prompt, &greedy, 150)).collect();
    for pages in [2, 3, 5] {
        let mut batch = Batch::new(&model, Bounds { pages, ..bounds() }).unwrap();
        let jobs = prompts
            .iter()
            .map(|prompt| Job { ignore_stops: true, ..Job::new(prompt.clone(), greedy.clone(), 150) });
        let tickets: Vec<_> = jobs.map(|job| batch.add(&model, job).unwrap()).collect();
        let mut tale = Tale::new();
        finish(&mut batch, &model, &mut tale);
        for (ticket, text) in tickets.iter().zip(&roomy) {
            let told = &tale[ticket];
            assert!(told.ids().starts_with(text), "{pages} pages");
            assert_eq!(told.ids().len(), 150);
        }
        let load = batch.load();
        assert_eq!((load.pages_used, load.running, load.waiting), (0, 0, 0));
        assert!(pages > 3 || load.preempted > 0, "{load:?}");
    }
}

#[test]
fn a_text_that_nobody_takes_gives_its_seat_to_one_that_waits_and_goes_on_later() {
    let model = model();
    let prompts = prompts(&model);
    let job = |at: usize, most| Job {
        ignore_stops: true,
        ..Job::new(prompts[at].clone(), Sampling::greedy(), most)
    };
    for pages in [64, 2] {
        let mut batch = Batch::new(&model, Bounds { parallel: 1, pages, ..bounds() }).unwrap();
        let mut tale = Tale::new();
        let slow = batch.add(&model, job(2, 40)).unwrap();
        while tale.get(&slow).is_none_or(|told| told.tokens.len() < 5) {
            note(&mut tale, batch.step(&model, |_| true));
        }
        // With nobody waiting it keeps its seat.
        note(&mut tale, batch.step(&model, |_| false));
        let before = tale[&slow].tokens.len();
        assert_eq!((batch.load().running, batch.rows()), (1, 0));
        let others = [batch.add(&model, job(0, 30)).unwrap(), batch.add(&model, job(5, 30)).unwrap()];
        let start = std::time::Instant::now();
        while others.iter().any(|other| tale.get(other).is_none_or(|told| told.done.is_none())) {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "the others wait for ever: {:?}",
                batch.load()
            );
            note(&mut tale, batch.step(&model, |ticket| ticket != slow));
            if batch.rows() == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert_eq!((tale[&slow].tokens.len(), batch.load().set_aside), (before, 1));
        note(&mut tale, batch.step(&model, |ticket| ticket != slow));
        assert_eq!(batch.rows(), 0, "nobody takes what it would say");
        finish(&mut batch, &model, &mut tale);
        let roomy = alone(&model, &prompts[2], &Sampling::greedy(), 40);
        assert!(tale[&slow].ids().starts_with(&roomy), "{pages} pages");
        assert_eq!(tale[&slow].ids().len(), 40);
    }
}

#[test]
fn who_got_least_is_next() {
    let model = model();
    let prompt = &prompts(&model)[0];
    let job = |owner| Job { owner, ..Job::new(prompt.clone(), Sampling::greedy(), 8) };
    let mut batch = Batch::new(&model, Bounds { parallel: 1, ..bounds() }).unwrap();
    let greedy: Vec<_> = (0..6).map(|_| batch.add(&model, job(1)).unwrap()).collect();
    let mut tale = Tale::new();
    note(&mut tale, batch.step(&model, |_| true));
    let modest: Vec<_> = (0..2).map(|_| batch.add(&model, job(2)).unwrap()).collect();
    let mut ended = Vec::new();
    while !batch.is_idle() {
        let outputs = batch.step(&model, |_| true);
        ended.extend(
            outputs.iter().filter(|(_, told)| matches!(told, Output::Done(_))).map(|(ticket, _)| *ticket),
        );
    }
    let [g, m] = [&greedy, &modest];
    assert_eq!(ended[..4], [g[0], m[0], g[1], m[1]], "in turns, in order for each");
    assert_eq!(ended[4..], g[2..]);
}

#[test]
fn nobody_has_more_than_an_equal_part_of_the_slots_beside_others() {
    let model = model();
    let prompt = &prompts(&model)[0];
    let job = |owner| Job { owner, ignore_stops: true, ..Job::new(prompt.clone(), Sampling::greedy(), 24) };
    let mut batch = Batch::new(&model, Bounds { parallel: 4, pages: 32, ..bounds() }).unwrap();
    // The first step reads what the others then share.
    let run = |batch: &mut Batch| (0..3).for_each(|_| drop(batch.step(&model, |_| true)));
    let many: Vec<_> = (0..6).map(|_| batch.add(&model, job(1)).unwrap()).collect();
    run(&mut batch);
    assert_eq!((batch.load().running, batch.load().waiting), (4, 2), "alone it has all");
    many[..4].iter().for_each(|ticket| batch.cancel(*ticket));
    let one = batch.add(&model, job(2)).unwrap();
    for _ in 0..3 {
        batch.add(&model, job(1)).unwrap();
    }
    run(&mut batch);
    assert_eq!(
        (batch.load().running, batch.load().waiting),
        (3, 3),
        "one slot is free, and not for the first"
    );
    // Who has just had an answer has not left.
    batch.cancel(one);
    run(&mut batch);
    assert_eq!((batch.load().running, batch.load().waiting), (2, 3));
    std::thread::sleep(Duration::from_millis(1050));
    run(&mut batch);
    assert_eq!(batch.load().running, 4);
}

#[test]
fn whoever_held_a_seat_without_a_word_is_not_ahead_of_others() {
    let model = model();
    let prompt = &prompts(&model)[0];
    let job = |owner| Job { owner, ignore_stops: true, ..Job::new(prompt.clone(), Sampling::greedy(), 8) };
    let mut batch = Batch::new(&model, Bounds { parallel: 1, ..bounds() }).unwrap();
    let slow = batch.add(&model, job(1)).unwrap();
    let mut tale = Tale::new();
    while tale.get(&slow).is_none_or(|told| told.tokens.is_empty()) {
        note(&mut tale, batch.step(&model, |_| true));
    }
    let others = [batch.add(&model, job(2)).unwrap(), batch.add(&model, job(2)).unwrap()];
    while batch.load().set_aside == 0 {
        note(&mut tale, batch.step(&model, |ticket| ticket != slow));
    }
    // Now its reader is back, again and again; the seat that it held for so long counts.
    let mut ended = Vec::new();
    while !batch.is_idle() {
        let outputs = batch.step(&model, |_| true);
        ended.extend(
            outputs.iter().filter(|(_, told)| matches!(told, Output::Done(_))).map(|(ticket, _)| *ticket),
        );
    }
    assert_eq!(ended, [others[0], others[1], slow]);
}

#[test]
fn a_known_beginning_is_not_read_again() {
    caches().into_iter().for_each(known_beginnings_are_not_read_again);
}

fn known_beginnings_are_not_read_again(kv: KvFormat) {
    let model = kept(kv);
    let mut batch = Batch::new(&model, bounds()).unwrap();
    let prompt = prompts(&model).swap_remove(2);
    let mut run = |salt, prompt: &[u32]| {
        let job = Job { salt, ..Job::new(prompt.to_vec(), Sampling::greedy(), 4) };
        let ticket = batch.add(&model, job).unwrap();
        let mut tale = Tale::new();
        finish(&mut batch, &model, &mut tale);
        tale.remove(&ticket).unwrap()
    };
    let first = run(1, &prompt);
    assert_eq!(first.cached, 0);
    let second = run(1, &prompt);
    assert_eq!(second.cached, prompt.len() - 1, "the last token is read for its logits");
    assert_eq!(second.ids(), first.ids());
    let grown: Vec<u32> = prompt.iter().copied().chain(first.ids()).chain([5, 6, 7]).collect();
    assert_eq!(run(1, &grown).cached, prompt.len() + 3, "the answer's last token was never read");
    assert_eq!(run(2, &prompt).cached, 0, "another salt");
    assert_eq!(run(1, &prompt).ids(), first.ids());
}

#[test]
fn choices_of_one_prompt_read_it_once() {
    let model = model();
    let mut batch = Batch::new(&model, bounds()).unwrap();
    let prompt = prompts(&model).swap_remove(2);
    for seed in 0..4 {
        let sampling = Sampling { seed, temperature: 1.0, ..Sampling::default() };
        batch.add(&model, Job::new(prompt.clone(), sampling, 5)).unwrap();
    }
    let mut tale = Tale::new();
    finish(&mut batch, &model, &mut tale);
    let cached: Vec<usize> = tale.values().map(|told| told.cached).collect();
    assert_eq!(cached[0], 0);
    assert!(cached[1..].iter().all(|&cached| cached == prompt.len() - 1), "{cached:?}");
}

#[test]
fn probabilities_of_prompts_are_those_of_the_forward_pass() {
    let model = model();
    let prompt = prompts(&model).swap_remove(2);
    let mut scratch = Scratch::default();
    let mut sequence = [Sequence::new(&model, 512)];
    let rows: Vec<Row> =
        prompt.iter().map(|&token| Row { sequence: 0, token, logits: Logits::All }).collect();
    let logits = model.forward(&mut scratch, &mut sequence, &rows).unwrap();
    let vocab = model.config().vocab;
    let logprob = |at: usize, id: u32| {
        let row = &logits[at * vocab..][..vocab];
        let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
        f64::from(row[id as usize]) - total.ln()
    };
    let mut batch = Batch::new(&model, bounds()).unwrap();
    let job = |most| Job {
        logprobs: Some(2),
        prompt_logprobs: Some(2),
        ..Job::new(prompt.clone(), Sampling::greedy(), most)
    };
    let tickets = [1, 0].map(|most| batch.add(&model, job(most)).unwrap());
    let mut tale = Tale::new();
    finish(&mut batch, &model, &mut tale);
    for ticket in tickets {
        let told = &tale[&ticket];
        assert_eq!(told.cached, 0);
        assert_eq!(told.prompt.iter().map(|scored| scored.id).collect::<Vec<_>>(), prompt);
        assert_eq!(told.prompt[0].logprob, None);
        for (at, scored) in told.prompt.iter().enumerate().skip(1) {
            let got = f64::from(scored.logprob.unwrap());
            assert!((got - logprob(at - 1, scored.id)).abs() < 1e-4, "{at}: {got}");
            assert_eq!(scored.top.len(), 2);
            assert!(scored.top[0].1 >= scored.top[1].1);
            // A greedy token's number is the same float in both places.
            if scored.top[0].0 == scored.id {
                assert_eq!(scored.logprob, Some(scored.top[0].1));
            }
        }
    }
    let [with, without] = tickets.map(|ticket| tale[&ticket].clone());
    assert_eq!((with.tokens.len(), without.tokens.len()), (1, 0));
    assert_eq!(with.prompt, without.prompt);
}

/// Counts: allows one id after the other, then nothing.
struct Count(u32, u32);

impl Guide for Count {
    fn allow(&mut self, bits: &mut Vec<u32>) -> Result<(), String> {
        bits.resize(8, 0);
        if self.0 < self.1 {
            bits[self.0 as usize / 32] |= 1 << (self.0 % 32);
        }
        Ok(())
    }

    fn accept(&mut self, id: u32) -> Result<(), String> {
        assert_eq!(id, self.0);
        self.0 += 1;
        if id == 99 { Err("not beyond 99".to_owned()) } else { Ok(()) }
    }
}

#[test]
fn guides_are_followed_and_their_failures_told() {
    let model = model();
    let mut batch = Batch::new(&model, bounds()).unwrap();
    let mut add = |from, to| {
        let job =
            Job { guide: Some(Box::new(Count(from, to))), ..Job::new(vec![9, 10], Sampling::default(), 20) };
        batch.add(&model, job).unwrap()
    };
    let (good, bad) = (add(70, 75), add(98, 110));
    let mut tale = Tale::new();
    finish(&mut batch, &model, &mut tale);
    assert_eq!((tale[&good].ids(), &tale[&good].done), (vec![70, 71, 72, 73, 74], &Some(Finish::Complete)));
    assert_eq!(tale[&bad].done, Some(Finish::Astray("not beyond 99".to_owned())));
}

#[test]
fn a_job_that_waits_for_its_reader_stands_still() {
    let model = model();
    let mut batch = Batch::new(&model, bounds()).unwrap();
    let slow = batch.add(&model, Job::new(vec![9, 10], Sampling::greedy(), 10)).unwrap();
    let quick = batch.add(&model, Job::new(vec![9, 11], Sampling::greedy(), 10)).unwrap();
    let mut tale = Tale::new();
    for _ in 0..20 {
        let outputs = batch.step(&model, |ticket| ticket != slow);
        note(&mut tale, outputs);
    }
    assert!(tale[&quick].done.is_some());
    assert_eq!(tale[&slow].tokens.len(), 1, "the prompt's own");
    finish(&mut batch, &model, &mut tale);
    assert!(tale[&slow].done.is_some());
}

#[test]
fn impossible_jobs_and_bounds_are_refused_with_their_numbers() {
    let model = model();
    let mut batch = Batch::new(&model, Bounds { context: 300, ..bounds() }).unwrap();
    for (prompt, expected) in [
        (vec![], "the prompt is empty"),
        (vec![1; 300], "the prompt has 300 tokens, the context 300"),
        (vec![1, u32::MAX], "token 4294967295 is not in the vocabulary"),
    ] {
        let error = batch.add(&model, Job::new(prompt, Sampling::greedy(), 5)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(batch.is_idle());
    for bad in [
        Bounds { context: 1 << 20, ..bounds() },
        Bounds { pages: 1, ..bounds() },
        Bounds { parallel: 0, ..bounds() },
    ] {
        assert!(Batch::new(&model, bad).is_err(), "{bad:?}");
    }
}
