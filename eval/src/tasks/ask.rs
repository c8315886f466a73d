//! Questions become tokens, and what the model makes of them answers.

use std::collections::BTreeSet;

use tern::{Error, Message, Model, Result, Specials, Tokenizer};

use super::grade::{Answer, Record, Tally, grade};
use super::items::{Ask, Question, Read};
use super::task::Task;
use crate::score::{Item, Likelihood, Scorer};

/// Puts the questions of one task to one model.
#[derive(Debug)]
pub struct Asker<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    task: &'a Task,
}

/// What came out of a task.
#[derive(Clone, Debug)]
pub struct Done {
    /// Every question's, in the order of the file.
    pub records: Vec<Record>,
    /// Their figures.
    pub tally: Tally,
    /// Tokens that went through the model.
    pub rows: u64,
    /// Questions that had a record before.
    pub resumed: usize,
}

/// Beginning and end in tokens.
struct Pair {
    context: Vec<u32>,
    end: Vec<u32>,
}

impl<'a> Asker<'a> {
    /// The model must have a tokenizer.
    pub fn new(model: &'a Model, task: &'a Task) -> Result<Self> {
        Ok(Self { model, tokenizer: model.tokenizer()?, task })
    }

    /// Moves the questions that cannot be put to this model, as those that are too long for it, to the bad ones.
    pub fn fit(&self, read: &mut Read) {
        let Read { questions, bad } = read;
        questions.retain(|question| match self.check(question) {
            Ok(()) => true,
            Err(what) => {
                bad.push((question.line, what));
                false
            }
        });
    }

    /// Puts every question that has no record yet. `each` is called once before and after every batch with how many of all
    /// are done and what was new; its error ends the run.
    pub fn run<E: From<Error>>(
        &self,
        scorer: &mut Scorer,
        questions: &[Question],
        mut records: Vec<Record>,
        mut each: impl FnMut(usize, &[Record]) -> std::result::Result<(), E>,
    ) -> std::result::Result<Done, E> {
        let known: BTreeSet<usize> = records.iter().map(|record| record.line).collect();
        let rest: Vec<&Question> =
            questions.iter().filter(|question| !known.contains(&question.line)).collect();
        let resumed = questions.len() - rest.len();
        let rows = scorer.rows();
        each(resumed, &[])?;
        for (nth, batch) in rest.chunks(scorer.slots()).enumerate() {
            let new = self.ask(scorer, batch)?;
            each(resumed + nth * scorer.slots() + new.len(), &new)?;
            records.extend(new);
        }
        // In the order of the file, whatever that of the records: the same sums to the last bit.
        let asked: BTreeSet<usize> = questions.iter().map(|question| question.line).collect();
        records.retain(|record| asked.contains(&record.line));
        records.sort_by_key(|record| record.line);
        records.dedup_by_key(|record| record.line);
        let mut tally = Tally::new(self.task);
        records.iter().for_each(|record| tally.add(record));
        Ok(Done { records, tally, rows: scorer.rows() - rows, resumed })
    }

    fn check(&self, question: &Question) -> std::result::Result<(), String> {
        let room = self.model.config().context;
        let most = match &question.ask {
            Ask::Write { prompt, .. } => self.prompt(prompt)?.len() + 1,
            _ => self
                .pairs(&question.ask)?
                .iter()
                .map(|pair| pair.context.len() + pair.end.len() - 1)
                .max()
                .unwrap_or(0),
        };
        if most > room {
            return Err(format!("{most} tokens do not fit into this model's context of {room}"));
        }
        Ok(())
    }

    /// Puts as many questions as there are slots.
    fn ask(&self, scorer: &mut Scorer, questions: &[&Question]) -> Result<Vec<Record>> {
        let answers = match questions.first().map(|question| &question.ask) {
            Some(Ask::Write { .. }) => self.write(scorer, questions)?,
            _ => self.score(scorer, questions)?,
        };
        Ok(questions.iter().zip(&answers).map(|(question, answer)| grade(question, answer)).collect())
    }

    fn score(&self, scorer: &mut Scorer, questions: &[&Question]) -> Result<Vec<Answer>> {
        // Ends after the same beginning are one item; a question may be several.
        let mut items: Vec<Item> = Vec::new();
        let mut places: Vec<Vec<(usize, usize)>> = Vec::new();
        for question in questions {
            let first = items.len();
            let mut mine = Vec::new();
            for pair in self.pairs(&question.ask).map_err(Error::Input)? {
                let found = (first..items.len()).find(|&at| items[at].context == pair.context);
                let at = found.unwrap_or(items.len());
                if found.is_none() {
                    items.push(Item { context: pair.context, ends: Vec::new() });
                }
                mine.push((at, items[at].ends.len()));
                items[at].ends.push(pair.end);
            }
            places.push(mine);
        }
        let mut scores: Vec<Vec<Vec<Likelihood>>> = Vec::with_capacity(items.len());
        for batch in items.chunks(scorer.slots()) {
            scores.extend(scorer.score(batch)?);
        }
        let answer = |(question, mine): (&&Question, &Vec<(usize, usize)>)| {
            let sums: Vec<f64> = mine
                .iter()
                .map(|&(item, end)| scores[item][end].iter().map(|scored| scored.logprob).sum())
                .collect();
            match &question.ask {
                Ask::Choice { pairs, unconditional, .. } => {
                    let (likelihoods, alone) = sums.split_at(pairs.len());
                    let alone = unconditional.as_ref().map(|_| alone.to_vec());
                    Answer::Choice { likelihoods: likelihoods.to_vec(), alone }
                }
                _ => {
                    let (item, end) = mine[0];
                    Answer::Cloze {
                        likelihood: sums[0],
                        best: scores[item][end].iter().all(|scored| scored.best),
                    }
                }
            }
        };
        Ok(questions.iter().zip(&places).map(answer).collect())
    }

    fn write(&self, scorer: &mut Scorer, questions: &[&Question]) -> Result<Vec<Answer>> {
        /// A stop is looked for in the text of so many last tokens: longer than any stop.
        const TAIL: usize = 24;
        let mut prompts = Vec::with_capacity(questions.len());
        for question in questions {
            if let Ask::Write { prompt, .. } = &question.ask {
                prompts.push(self.prompt(prompt).map_err(Error::Input)?);
            }
        }
        let stops = self.tokenizer.stops();
        let texts = scorer.greedy(&prompts, self.task.tokens, |_, tokens| {
            if tokens.last().is_some_and(|last| stops.contains(last)) {
                return true;
            }
            let tail = self.tokenizer.decode(&tokens[tokens.len().saturating_sub(TAIL)..], false);
            self.task.stop.iter().any(|stop| tail.contains(stop))
        })?;
        let text = |mut tokens: Vec<u32>| {
            if tokens.last().is_some_and(|last| stops.contains(last)) {
                tokens.pop();
            }
            let text = self.tokenizer.decode(&tokens, false);
            let end = self.task.stop.iter().filter_map(|stop| text.find(stop)).min().unwrap_or(text.len());
            Answer::Text(text[..end].to_owned())
        };
        Ok(texts.into_iter().map(text).collect())
    }

    /// The tokens of each choice, and then of each choice alone.
    fn pairs(&self, ask: &Ask) -> std::result::Result<Vec<Pair>, String> {
        match ask {
            Ask::Choice { pairs, unconditional, .. } => {
                let alone =
                    unconditional.iter().flat_map(|start| pairs.iter().map(move |(_, end)| (start, end)));
                pairs
                    .iter()
                    .map(|(start, end)| (start, end))
                    .chain(alone)
                    .map(|(start, end)| self.pair(start, end))
                    .collect()
            }
            Ask::Cloze { prompt, end } => Ok(vec![self.pair(prompt, end)?]),
            Ask::Write { .. } => Ok(Vec::new()),
        }
    }

    /// Beginning and end are encoded as one text, as the model would read it, and then parted.
    fn pair(&self, start: &str, end: &str) -> std::result::Result<Pair, String> {
        // Spaces at the border belong to the end: tokenizers put them in front of words.
        let kept = start.trim_end();
        let end = format!("{}{end}", &start[kept.len()..]);
        let mut context = self.encode(kept)?;
        let mut whole = self.encode(&format!("{kept}{end}"))?;
        if context.is_empty() {
            // Without a token that begins texts, what the model ends them with stands before the first.
            let first = self.tokenizer.bos().or(self.tokenizer.stops().first().copied());
            let first = first.ok_or("an empty beginning, and the tokenizer has no token for that")?;
            whole.insert(0, first);
            context.push(first);
        }
        if whole.len() <= context.len() {
            return Err("the end has no tokens of its own".to_owned());
        }
        let end = whole.split_off(context.len());
        Ok(Pair { context: whole, end })
    }

    /// A prompt to be continued.
    fn prompt(&self, text: &str) -> std::result::Result<Vec<u32>, String> {
        let template = self.tokenizer.template().filter(|_| self.task.chat);
        let tokens = match template {
            None => self.encode(text)?,
            Some(template) => {
                let message = Message { role: "user".to_owned(), content: text.to_owned() };
                let text = template.render(&[message], true).map_err(|error| error.to_string())?;
                self.tokenizer.encode(&text, false, Specials::Parse).map_err(|error| error.to_string())?
            }
        };
        if tokens.is_empty() { Err("the prompt is empty".to_owned()) } else { Ok(tokens) }
    }

    fn encode(&self, text: &str) -> std::result::Result<Vec<u32>, String> {
        let bos = self.tokenizer.adds_bos();
        self.tokenizer.encode(text, bos, Specials::Text).map_err(|error| error.to_string())
    }
}
