//! Drafts change no text: every guess tried, texts are what they are without, alone and in company, greedy and drawn, on every
//! instruction set, packing, number of threads and format of keys and values.

mod golden;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use golden::{Golden, golden, open};
use tern::{
    Batch, Bounds, Cpu, Drafted, Drafts, Dry, Finish, Generation, Guide, Job, KvFormat, Model, Options,
    Output, Packing, Sampling, Scored, Specials, Ticket, Zeros,
};

/// Every guess is tried, however long and wherever it fails.
const ALWAYS: Drafts = Drafts { tokens: 7, always: true };

fn model(kv: KvFormat) -> Model {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/models/page/page.gguf");
    Model::open(&page, &Options { threads: Some(2), kv, ..Options::default() }).unwrap()
}

fn prompts(model: &Model) -> Vec<Vec<u32>> {
    let tokenizer = model.tokenizer().unwrap();
    let long = "The bird looked at the sea and the sea looked back. ".repeat(19);
    let texts = ["Once upon a time", "The bird looked at the sea. The bird", &long, &long[20..500], "A"];
    texts.iter().map(|text| tokenizer.encode(text, true, Specials::Text).unwrap()).collect()
}

/// Greedy and drawn, with everything that looks back at the text.
fn samplings() -> Vec<Sampling> {
    let drawn = Sampling { temperature: 0.5, seed: 6, ..Sampling::default() };
    vec![
        Sampling::greedy(),
        drawn.clone(),
        Sampling { temperature: 1.2, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 5, ..Sampling::default() },
        Sampling { repeat_penalty: 1.1, ..drawn.clone() },
        Sampling { presence_penalty: 0.5, frequency_penalty: 0.3, ..drawn.clone() },
        Sampling { dry: Dry { multiplier: 0.8, ..Dry::default() }, ..Sampling::greedy() },
        Sampling { typical: 0.6, logit_bias: vec![(40, 1.5)], ..drawn },
    ]
}

/// Tokens with their log-probabilities, and what was guessed.
fn alone(model: &Model, prompt: &[u32], sampling: &Sampling, drafts: Drafts) -> (Vec<(u32, u32)>, Drafted) {
    let generation = Generation::new(model, 512, sampling.clone()).unwrap();
    let mut generation = generation.with_least(3).with_logprobs().with_drafts(drafts);
    generation.prompt(prompt).unwrap();
    let next = || generation.next().unwrap().map(|token| (token.id, token.logprob.unwrap().to_bits()));
    (std::iter::from_fn(next).take(100).collect(), generation.drafted())
}

#[test]
fn a_text_alone_is_the_same_with_every_guess_tried() {
    let mut drafted = Drafted::default();
    for kv in KvFormat::ALL {
        let model = model(kv);
        for prompt in prompts(&model) {
            for sampling in samplings() {
                let (want, none) = alone(&model, &prompt, &sampling, Drafts::NONE);
                let (got, some) = alone(&model, &prompt, &sampling, ALWAYS);
                assert_eq!(got, want, "{kv:?} {sampling:?}");
                assert_eq!(none, Drafted::default());
                drafted.tokens += some.tokens;
                drafted.accepted += some.accepted;
                // Where it pays, by this machine's clock: some guesses or none.
                assert_eq!(
                    alone(&model, &prompt, &sampling, Drafts::default()).0,
                    want,
                    "{kv:?} {sampling:?}"
                );
            }
        }
    }
    let Drafted { tokens, accepted } = drafted;
    assert!(accepted > 500 && tokens > accepted + 500, "both kinds of guess were tried: {drafted:?}");
}

#[test]
fn a_text_that_is_left_and_gone_on_with_is_the_same() {
    let model = model(KvFormat::F16);
    let prompts = prompts(&model);
    let write = |drafts| {
        let sampling = Sampling { temperature: 0.4, seed: 3, ..Sampling::default() };
        let mut generation = Generation::new(&model, 512, sampling).unwrap().with_drafts(drafts);
        let mut told = Vec::new();
        for (turn, prompt) in [&prompts[2][..40], &prompts[1], &prompts[3][..30]].into_iter().enumerate() {
            generation.prompt(prompt).unwrap();
            for _ in 0..15 + turn {
                generation.next().unwrap();
                told.push((generation.tokens(), generation.remaining(), generation.stopped()));
            }
            if turn == 1 {
                generation.truncate(generation.tokens().len() - 9);
                told.push((generation.tokens(), generation.remaining(), generation.stopped()));
            }
        }
        told
    };
    assert_eq!(write(ALWAYS), write(Drafts::NONE));
    // Up to the last position of the context.
    let fill = |drafts| {
        let mut generation = Generation::new(&model, 90, Sampling::greedy()).unwrap().with_drafts(drafts);
        generation.prompt(&prompts[2][..60]).unwrap();
        while generation.next().unwrap().is_some() {}
        (generation.tokens(), generation.stopped())
    };
    assert_eq!(fill(ALWAYS), fill(Drafts::NONE));
}

#[derive(Debug, Default, PartialEq)]
struct Told {
    tokens: Vec<Scored>,
    drafted: Drafted,
    done: Option<Finish>,
}

fn finish(batch: &mut Batch, model: &Model) -> BTreeMap<Ticket, Told> {
    let mut tale = BTreeMap::<Ticket, Told>::new();
    for _ in 0..20_000 {
        if batch.is_idle() {
            return tale;
        }
        for (ticket, output) in batch.step(model, |_| true) {
            let told = tale.entry(ticket).or_default();
            assert_eq!(told.done, None, "nothing comes after the end");
            match output {
                Output::Reading { .. } | Output::Read { .. } => {}
                Output::Drafted(Drafted { tokens, accepted }) => {
                    assert!(accepted <= tokens);
                    told.drafted.tokens += tokens;
                    told.drafted.accepted += accepted;
                }
                Output::Token(scored) => told.tokens.push(scored),
                Output::Done(finish) => told.done = Some(finish),
            }
        }
        let load = batch.load();
        assert!(load.pages_used + load.pages_kept <= load.pages, "{load:?}");
    }
    panic!("it goes on and on: {:?}", batch.load());
}

#[test]
fn texts_in_a_batch_are_the_same_also_when_they_give_their_pages_up() {
    for kv in KvFormat::ALL {
        let model = model(kv);
        let run = |pages, drafts| {
            let bounds = Bounds { parallel: 6, context: 512, pages, pause: Duration::from_millis(100) };
            let mut batch = Batch::new(&model, bounds).unwrap().with_drafts(drafts);
            for prompt in prompts(&model) {
                for (n, sampling) in samplings().into_iter().enumerate() {
                    let job = Job::new(prompt.clone(), sampling, 60);
                    let logprobs = [None, Some(2)][n % 2];
                    batch.add(&model, Job { ignore_stops: n % 3 > 0, logprobs, ..job }).unwrap();
                }
            }
            let tale = finish(&mut batch, &model);
            assert_eq!(batch.load().pages_used, 0);
            (tale, batch.load().preempted)
        };
        let (want, _) = run(64, Drafts::NONE);
        for pages in [64, 3] {
            let (got, preempted) = run(pages, ALWAYS);
            assert!(pages > 3 || preempted > 0);
            let mut drafted = Drafted::default();
            for (ticket, want) in &want {
                let got = &got[ticket];
                assert_eq!(
                    (&got.tokens, &got.done),
                    (&want.tokens, &want.done),
                    "{kv:?}, {pages} pages, {ticket:?}"
                );
                drafted.tokens += got.drafted.tokens;
                drafted.accepted += got.drafted.accepted;
            }
            let Drafted { tokens, accepted } = drafted;
            assert!(accepted > 100 && tokens > accepted + 100, "{drafted:?}");
        }
        let (got, _) = run(64, Drafts::default());
        assert!(got.iter().all(|(ticket, got)| got.tokens == want[ticket].tokens), "{kv:?}");
    }
}

/// The same model, less exact: mostly right, and wrong now and then.
fn coarse() -> Arc<Model> {
    Arc::new(model(KvFormat::INT8))
}

#[test]
fn a_draft_model_changes_no_text_alone_or_in_a_batch() {
    let model = model(KvFormat::F32);
    let bounds = Bounds { parallel: 6, context: 512, pages: 64, pause: Duration::from_millis(100) };
    let run = |drafts, draft: Option<Arc<Model>>| {
        let mut batch = Batch::new(&model, bounds).unwrap().with_drafts(drafts);
        if let Some(draft) = draft {
            batch = batch.with_draft_model(&model, draft).unwrap();
        }
        for prompt in prompts(&model) {
            for sampling in samplings() {
                batch
                    .add(&model, Job { ignore_stops: true, ..Job::new(prompt.clone(), sampling, 40) })
                    .unwrap();
            }
        }
        finish(&mut batch, &model)
    };
    let want = run(Drafts::NONE, None);
    let looked = run(ALWAYS, None);
    let got = run(ALWAYS, Some(coarse()));
    let count =
        |tale: &BTreeMap<Ticket, Told>| tale.values().map(|told| told.drafted.accepted).sum::<usize>();
    for (ticket, want) in &want {
        assert_eq!((&got[ticket].tokens, &got[ticket].done), (&want.tokens, &want.done), "{ticket:?}");
    }
    assert!(count(&got) > 2 * count(&looked), "{} and {}", count(&got), count(&looked));
    let got = run(Drafts::default(), Some(coarse()));
    assert!(want.iter().all(|(ticket, want)| want.tokens == got[ticket].tokens));
    // Alone, with a draft whose context is full before the text's is.
    for prompt in prompts(&model) {
        for sampling in samplings() {
            let (want, _) = alone(&model, &prompt, &sampling, Drafts::NONE);
            let mut generation = Generation::new(&model, 512, sampling.clone()).unwrap();
            generation = generation.with_least(3).with_logprobs().with_drafts(ALWAYS);
            let mut generation = generation.with_draft_model(coarse()).unwrap();
            generation.prompt(&prompt).unwrap();
            let next =
                || generation.next().unwrap().map(|token| (token.id, token.logprob.unwrap().to_bits()));
            let got: Vec<_> = std::iter::from_fn(next).take(100).collect();
            assert_eq!(got, want, "{sampling:?}");
        }
    }
}

#[test]
fn a_draft_model_that_is_always_wrong_changes_nothing() {
    let [target, draft] =
        ["bitnet_online_bf16", "llama_packed_bitlinear"].map(|name| open(&golden(name), Options::default()));
    let mut shared = draft;
    shared.share_threads(&target);
    let start = Golden::open("bitnet_online_bf16").ids("greedy_from_first_5");
    let most = target.config().context;
    let write = |draft: Option<Arc<Model>>| {
        let mut generation = Generation::new(&target, most, Sampling::greedy()).unwrap().with_drafts(ALWAYS);
        if let Some(draft) = draft {
            generation = generation.with_draft_model(draft).unwrap();
        }
        generation.prompt(&start[..5]).unwrap();
        (0..20).for_each(|_| assert!(generation.next().unwrap().is_some()));
        (generation.tokens(), generation.drafted())
    };
    let (want, _) = write(None);
    let (got, drafted) = write(Some(Arc::new(shared)));
    assert_eq!(got, want);
    assert!(drafted.tokens > drafted.accepted + 20, "{drafted:?}");
}

#[test]
fn a_draft_model_with_other_tokens_is_refused() {
    let model = model(KvFormat::F16);
    let story = Arc::new(Model::story(&Options::default()).unwrap());
    let golden = Arc::new(open(&golden("bitnet_online_bf16"), Options::default()));
    for (draft, expected) in [(story, "token "), (golden, "only one of the two has a tokenizer")] {
        let generation = Generation::new(&model, 64, Sampling::greedy()).unwrap();
        let error = generation.with_draft_model(draft.clone()).unwrap_err().to_string();
        let start = "a draft model must have the model's vocabulary: ";
        assert!(error.starts_with(start) && error.contains(expected) && !error.contains('\n'), "{error}");
        let bounds = Bounds { parallel: 1, context: 64, pages: 1, pause: Duration::ZERO };
        let batch = Batch::new(&model, bounds).unwrap().with_draft_model(&model, draft);
        assert_eq!(batch.err().unwrap().to_string(), error);
    }
}

/// Allows every token, and counts what it is told.
struct Counted(usize);

impl Guide for Counted {
    fn allow(&mut self, bits: &mut Vec<u32>) -> Result<(), String> {
        bits.resize(1 << 12, if self.0 < 40 { u32::MAX } else { 0 });
        Ok(())
    }
    fn accept(&mut self, _: u32) -> Result<(), String> {
        self.0 += 1;
        Ok(())
    }
}

#[test]
fn a_text_with_a_grammar_is_not_guessed_at_and_its_neighbour_is() {
    let model = model(KvFormat::F16);
    let bounds = Bounds { parallel: 2, context: 512, pages: 8, pause: Duration::from_millis(100) };
    let mut batch = Batch::new(&model, bounds).unwrap().with_drafts(ALWAYS);
    let prompt = &prompts(&model)[2];
    let job = || Job { ignore_stops: true, ..Job::new(prompt.clone(), Sampling::greedy(), 60) };
    let guided = batch.add(&model, Job { guide: Some(Box::new(Counted(0))), ..job() }).unwrap();
    let free = batch.add(&model, job()).unwrap();
    let tale = finish(&mut batch, &model);
    assert_eq!((tale[&guided].drafted, &tale[&guided].done), (Drafted::default(), &Some(Finish::Complete)));
    assert!(tale[&free].drafted.accepted > 10, "{:?}", tale[&free].drafted);
    assert_eq!(tale[&guided].tokens, tale[&free].tokens[..40]);
}

#[test]
fn every_instruction_set_packing_and_number_of_threads_writes_the_same() {
    for name in ["bitnet_online_bf16", "llama_packed_bitlinear"] {
        let start = Golden::open(name).ids("greedy_from_first_5");
        for kv in KvFormat::ALL {
            let base = Options { kv, ..Options::default() };
            // Guesses of the text itself; of the same model, which is mostly right; of another, which is not.
            let write = |options: &Options, drafts, guesses: Option<&str>| {
                let model = open(&golden(name), options.clone());
                let sampling = Sampling { temperature: 0.3, seed: 1, ..Sampling::default() };
                let most = model.config().context;
                let mut generation = Generation::new(&model, most, sampling).unwrap().with_drafts(drafts);
                if let Some(other) = guesses {
                    let mut draft = open(&golden(other), Options { kv: KvFormat::INT8, ..options.clone() });
                    draft.share_threads(&model);
                    generation = generation.with_draft_model(Arc::new(draft)).unwrap();
                }
                generation.prompt(&[&start[..], &start].concat()).unwrap();
                (0..24).for_each(|_| assert!(generation.next().unwrap().is_some()));
                (generation.tokens(), generation.drafted())
            };
            let (want, _) = write(&base, Drafts::NONE, None);
            for cpu in Cpu::available() {
                for packing in Packing::ALL {
                    for threads in [1, 2, 3] {
                        for zeros in [Zeros::Read, Zeros::Skip] {
                            let cpu = Some(cpu.name().to_owned());
                            let (threads, packing) = (Some(threads), Some(packing));
                            let options = Options { cpu, threads, packing, zeros, ..base.clone() };
                            for guesses in [None, Some(name), Some("bitnet_1bitllm_f16")] {
                                let (got, drafted) = write(&options, ALWAYS, guesses);
                                assert!(got == want, "{name} {guesses:?} {options:?}");
                                assert!(drafted.tokens > 0, "{name}: nothing was guessed");
                                assert!(guesses != Some(name) || drafted.accepted > 4, "{drafted:?}");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_dictated_text_is_written_as_it_is_with_guesses_and_without() {
    let model = model(KvFormat::F16);
    let (prompt, answer) = (&prompts(&model)[1], prompts(&model)[3][..90].to_vec());
    for drafts in [Drafts::NONE, Drafts::default(), ALWAYS] {
        let generation = Generation::new(&model, 512, Sampling::greedy()).unwrap();
        let mut generation = generation.with_drafts(drafts).with_answer(answer.clone());
        generation.prompt(prompt).unwrap();
        for id in &answer {
            assert_eq!(generation.next().unwrap().map(|token| token.id), Some(*id));
        }
        assert!(drafts != ALWAYS || generation.drafted().accepted > 30);
    }
}
