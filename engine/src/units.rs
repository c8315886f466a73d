//! Hidden units that are left out: behind ReLU² most gates are closed, and what is multiplied with their zeros need not be read.
//!
//! A step of one token takes `gate` first, then the rows of `up` whose gate is open, then the columns of `down` whose activation
//! is not 0. That wants both matrices by hidden unit, beside the blocks that prompts and batches read: a second copy of two
//! thirds of a feed-forward layer. So the copy is made where it pays: after some tokens written alone, if enough gates were
//! closed in them; and it is used while the clock says that it saves time. No result depends on either. Where a model takes the
//! larger half of the attention's output (BitNet a4.8), the projection behind it is copied by its columns, too.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tern_kernels::{Activation, Activations, ByColumn, ByRow, Cpu, Intake, Pool, Rounding, Ternary};

use crate::config::Config;
use crate::weights::{Layer, Projection};

/// Whether zeros behind closed gates are read when a text is written alone, in models with ReLU². No result depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zeros {
    /// They are left out where that saves time, which is tried when a hundred tokens have been written.
    #[default]
    Auto,
    /// They are read: no second copy of matrices is held.
    Read,
    /// They are left out from the first token on.
    Skip,
}

impl Zeros {
    /// Every way.
    pub const ALL: [Zeros; 3] = [Zeros::Auto, Zeros::Read, Zeros::Skip];

    /// The name used in options.
    pub fn name(self) -> &'static str {
        match self {
            Zeros::Auto => "auto",
            Zeros::Read => "read",
            Zeros::Skip => "skip",
        }
    }

    /// The way of this name.
    pub fn from_name(name: &str) -> Option<Zeros> {
        Self::ALL.into_iter().find(|zeros| zeros.name() == name)
    }
}

/// What a step of one token found behind its gates, and what it read there. All 0 in a step of several tokens, and in models
/// without ReLU².
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitReads {
    /// Hidden units of all layers.
    pub units: u64,
    /// Of these, units whose gate was closed.
    pub closed: u64,
    /// Units whose activation was 0 in front of `down`: closed ones, and those that round to 0.
    pub zeros: u64,
    /// Bytes of `up` and `down` that were not read, and of `o` where the larger half of its input is taken.
    pub unread: u64,
}

/// The matrices behind a gate, by hidden unit; and the attention's output projection by its columns, where half of its input
/// is 0 by the model's own rule.
#[derive(Debug)]
pub(crate) struct Copies {
    pub(crate) up: ByRow,
    pub(crate) down: ByColumn,
    pub(crate) o: Option<ByColumn>,
}

impl Copies {
    fn of(cpu: Cpu, pool: &Pool, layer: &Layer, halves: bool) -> Option<Self> {
        let up = ByRow::of(pool, layer.up.weight.ternary()?)?;
        let down = ByColumn::of(cpu, pool, layer.down.weight.ternary()?)?;
        let o = if halves { Some(ByColumn::of(cpu, pool, layer.o.weight.ternary()?)?) } else { None };
        Some(Self { up, down, o })
    }

    /// The outputs of `up` whose gate is open; the others are 0, as what is multiplied with a closed gate may be.
    pub(crate) fn up(
        &self,
        cpu: Cpu,
        pool: &Pool,
        x: &mut Activations,
        up: &Ternary,
        gate: &[f32],
        out: &mut Vec<f32>,
    ) {
        out.clear();
        out.resize(gate.len(), 0.0);
        if self.up.is_finite(x) {
            self.up.matmul(cpu, pool, x, |unit| gate[unit] > 0.0, out);
        } else {
            // 0 times infinity is no number, and the model is broken: whoever reads all of it would say so.
            up.matmul(cpu, pool, x, out);
        }
    }

    /// Bytes that products of so many open rows and columns read.
    fn read(&self, rows: u64, columns: u64) -> u64 {
        rows * self.up.row_bytes() as u64 + columns * self.down.column_bytes() as u64
    }
}

impl UnitReads {
    /// Counts the gates of a layer.
    pub(crate) fn count_gates(&mut self, cpu: Cpu, gate: &[f32]) {
        let open = cpu.vectorised(
            #[inline(always)]
            || gate.iter().map(|&gate| u32::from(gate > 0.0)).sum::<u32>(),
        );
        self.units += gate.len() as u64;
        self.closed += gate.len() as u64 - u64::from(open);
    }

    /// Counts the columns of `o` that were left out.
    pub(crate) fn count_columns(&mut self, o: &ByColumn, input: &Activations) {
        self.unread += (input.zeros(0) * o.column_bytes()) as u64;
    }

    /// Counts the zeros in front of `down`.
    pub(crate) fn count_codes(&mut self, cpu: Cpu, codes: &[i8]) {
        let zeros = cpu.vectorised(
            #[inline(always)]
            || codes.iter().map(|&code| u32::from(code == 0)).sum::<u32>(),
        );
        self.zeros += u64::from(zeros);
    }
}

/// The copies of a model, and whether they are used.
#[derive(Debug)]
pub(crate) struct Units {
    /// Whether the model closes gates, and rounds what comes behind them with one scale a token.
    closes: bool,
    /// Whether it takes the larger half of the attention's output.
    halves: bool,
    /// One for each layer; none where they will never be wanted.
    copies: Vec<OnceLock<Copies>>,
    choice: Mutex<Choice>,
}

/// How a step goes through its feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It has several tokens, or a model that closes no gates: nothing is noted.
    Plain,
    /// All is read.
    Whole,
    /// Closed units are left out.
    Open,
}

/// What was seen in the steps of one token.
#[derive(Debug, Default)]
struct Choice {
    zeros: Zeros,
    /// Steps so far, as far as they are of interest.
    steps: usize,
    /// Layers whose copies are there.
    copied: usize,
    /// No copies will be made (any more).
    never: bool,
    /// The share of closed units lately.
    closed: f32,
    /// Seconds in the feed-forward layers lately, where all is read and where closed units are left out.
    whole: Option<f32>,
    open: Option<f32>,
    /// Steps since the other way was tried.
    since: usize,
}

/// Steps before copies are made: making them costs about what they save in so many.
const FIRST: usize = 100;
/// The share of closed units from which copies are made.
const ENOUGH: f32 = 0.4;
/// Steps after which the way that was slower is tried once more: the machine and the text may have changed.
const AGAIN: usize = 200;

impl Units {
    /// For a model of this configuration and these inputs of `o`, of `gate` and `up`, and of `down`; the layers' copies come later.
    pub(crate) fn new(zeros: Zeros, config: &Config, [o, gate_up, down]: [&Intake; 3]) -> Self {
        let closes = config.activation == Activation::Relu2
            && !config.graph.input_norms
            && [gate_up, down]
                .iter()
                .all(|intake| !matches!(intake.rounding, Rounding::Group | Rounding::None));
        let suits = closes && zeros != Zeros::Read;
        let copies = (0..if suits { config.layers } else { 0 }).map(|_| OnceLock::new()).collect();
        let halves = suits && o.rounding == Rounding::TopHalf;
        Self {
            closes,
            halves,
            copies,
            choice: Mutex::new(Choice { zeros, never: !suits, ..Choice::default() }),
        }
    }

    /// The copies of a layer, where a step is to use them.
    pub(crate) fn copies(&self, way: Way, layer: usize) -> Option<&Copies> {
        (way == Way::Open).then(|| self.copies.get(layer)?.get()).flatten()
    }

    /// Bytes of the copies that there are.
    pub(crate) fn bytes(&self) -> u64 {
        let held = self.copies.iter().filter_map(OnceLock::get);
        let o = |copies: &Copies| copies.o.as_ref().map_or(0, ByColumn::bytes);
        held.map(|copies| (copies.up.bytes() + copies.down.bytes() + o(copies)) as u64).sum()
    }

    /// How a step of so many rows goes; makes the copies of a layer when it is time.
    pub(crate) fn way(&self, rows: usize, cpu: Cpu, pool: &Pool, layers: &[Layer]) -> Way {
        if rows != 1 || !self.closes {
            return Way::Plain;
        }
        let mut choice = self.choice();
        if choice.never {
            return Way::Whole;
        }
        if choice.is_time() {
            // One layer a step, so that no token is late by much; all at once where it was asked for.
            let end =
                if choice.zeros == Zeros::Skip { layers.len() } else { layers.len().min(choice.copied + 1) };
            while choice.copied < end {
                let Some(copies) = Copies::of(cpu, pool, &layers[choice.copied], self.halves) else {
                    choice.never = true;
                    return Way::Whole;
                };
                // There is none yet: whoever sets one holds this lock.
                let _ = self.copies[choice.copied].set(copies);
                choice.copied += 1;
            }
        }
        if choice.copied < layers.len() { Way::Whole } else { choice.way() }
    }

    /// Notes what a step came to, and how many bytes it saved.
    pub(crate) fn note(&self, way: Way, reads: &mut UnitReads, time: Duration, layers: &[Layer]) {
        if way == Way::Plain {
            return;
        }
        self.choice().note(way, reads, time);
        if let Some(copies) = self.copies(way, 0) {
            // All layers are alike.
            let read = copies.read(reads.units - reads.closed, reads.units - reads.zeros);
            reads.unread += packed(layers.iter().flat_map(behind)).saturating_sub(read);
        }
    }

    /// Bytes of copies that there are, or that may come.
    pub(crate) fn may_hold(&self, layers: &[Layer]) -> u64 {
        if self.choice().never {
            return self.bytes();
        }
        let o = layers.iter().map(|layer| &layer.o).filter(|_| self.halves);
        packed(layers.iter().flat_map(behind).chain(o))
    }

    /// Whether it is known how texts written alone are computed, while they stay as they are.
    pub(crate) fn are_settled(&self) -> bool {
        let choice = self.choice();
        let tried = choice.whole.is_some() && choice.open.is_some();
        let left = choice.steps > FIRST && choice.copied == 0 && choice.closed < ENOUGH;
        !self.closes || choice.never || choice.zeros == Zeros::Skip || tried || left
    }

    fn choice(&self) -> MutexGuard<'_, Choice> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Choice {
    /// Whether the next copies are to be made.
    fn is_time(&self) -> bool {
        match self.zeros {
            Zeros::Read => false,
            Zeros::Skip => true,
            Zeros::Auto => self.copied > 0 || self.steps > FIRST && self.closed >= ENOUGH,
        }
    }

    /// The quicker way, and the other one now and then.
    fn way(&mut self) -> Way {
        if self.zeros == Zeros::Skip {
            return Way::Open;
        }
        let (quicker, other) = match (self.whole, self.open) {
            (Some(whole), Some(open)) if whole <= open => (Way::Whole, Way::Open),
            _ => (Way::Open, Way::Whole),
        };
        self.since += 1;
        if self.since < AGAIN {
            return quicker;
        }
        self.since = 0;
        other
    }

    fn note(&mut self, way: Way, reads: &UnitReads, time: Duration) {
        let share = reads.closed as f32 / reads.units.max(1) as f32;
        self.closed = if self.steps == 0 { share } else { lately(self.closed, share) };
        self.steps = (self.steps + 1).min(2 * FIRST);
        let known = if way == Way::Open { &mut self.open } else { &mut self.whole };
        let time = time.as_secs_f32();
        // A step that was interrupted says nothing about the next one.
        *known = Some(known.map_or(time, |known| lately(known, time.min(2.0 * known))));
    }
}

/// The matrices behind the gate of a layer.
fn behind(layer: &Layer) -> [&Projection; 2] {
    [&layer.up, &layer.down]
}

/// Bytes of these matrices.
fn packed<'a>(projections: impl Iterator<Item = &'a Projection>) -> u64 {
    projections
        .filter_map(|projection| projection.weight.ternary())
        .map(|matrix| matrix.blocks().len() as u64)
        .sum()
}

/// A mean in which older numbers fade.
fn lately(before: f32, now: f32) -> f32 {
    before + (now - before) / 8.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(closed: u64) -> UnitReads {
        UnitReads { units: 100, closed, ..UnitReads::default() }
    }

    /// Steps of 10 ms whole and so many open, of which copies of 3 layers were made when it was time.
    fn run(choice: &mut Choice, closed: u64, open: u64, steps: usize) -> Vec<Way> {
        let step = |_| {
            if choice.is_time() && choice.copied < 3 {
                choice.copied += 1;
            }
            let way = if choice.copied < 3 { Way::Whole } else { choice.way() };
            let time = if way == Way::Open { open } else { 10 };
            choice.note(way, &reads(closed), Duration::from_millis(time));
            way
        };
        (0..steps).map(step).collect()
    }

    #[test]
    fn copies_come_after_some_steps_with_closed_gates_and_are_used_while_they_pay() {
        let mut choice = Choice::default();
        assert!(run(&mut choice, 39, 7, 500).iter().all(|way| *way == Way::Whole));
        assert_eq!(choice.copied, 0);
        let mut choice = Choice::default();
        let ways = run(&mut choice, 70, 7, 1000);
        assert_eq!(ways.iter().position(|way| *way == Way::Open), Some(FIRST + 3));
        let whole = ways[FIRST + 3..].iter().filter(|way| **way == Way::Whole).count();
        assert_eq!(whole, (1000 - FIRST - 3) / AGAIN, "tried now and then");
        // The texts change.
        let ways = run(&mut choice, 20, 12, 1000);
        let open = ways[50..].iter().filter(|way| **way == Way::Open).count();
        assert!(open <= 1000 / AGAIN, "{open} of the slower way");
        // And change back.
        let ways = run(&mut choice, 70, 5, 6 * AGAIN);
        assert_eq!(ways.last(), Some(&Way::Open));
    }

    #[test]
    fn what_was_asked_for_is_done_at_once_or_never() {
        let mut choice = Choice { zeros: Zeros::Skip, ..Choice::default() };
        choice.copied = 3;
        assert!(run(&mut choice, 0, 99, 500).iter().all(|way| *way == Way::Open));
        let mut choice = Choice { zeros: Zeros::Read, ..Choice::default() };
        assert!(run(&mut choice, 99, 1, 500).iter().all(|way| *way == Way::Whole));
        for zeros in Zeros::ALL {
            assert_eq!(Zeros::from_name(zeros.name()), Some(zeros));
        }
    }
}
