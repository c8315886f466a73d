//! The results: a table for people, JSON and CSV for programs.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};
use tern::{Activity, Cost, date};
use tern_kernels::{KvFormat, Packing};

use super::measure::{Bench, Measured, Start, Units};
use super::rival::{Rival, RivalTest};
use super::test::{Spread, Test, Work};
use crate::answer::ms;
use crate::cmd::inspect::{active_json, short};
use crate::failure::Outcome;
use crate::machine::{self, Machine};

/// All that one benchmark found out.
pub(super) struct Report {
    pub(super) model: String,
    pub(super) machine: Machine,
    /// In UTC.
    pub(super) date: String,
    pub(super) note: Option<String>,
    /// The instruction set.
    pub(super) cpu: &'static str,
    pub(super) packing: Packing,
    /// How keys and values are kept, and the bytes of one token's.
    pub(super) kv: (KvFormat, usize),
    /// Ternary weights.
    pub(super) weights: u64,
    pub(super) start: Start,
    /// Most bytes held at once.
    pub(super) peak: Option<u64>,
    /// Bytes that are read for the ceiling.
    pub(super) region: usize,
    /// The name of the energy counters, or why there are none.
    pub(super) meter: Result<String, String>,
    pub(super) cost: Cost,
    /// The width of the model.
    dim: usize,
    pub(super) tests: Vec<Measured>,
    /// What share of the parameters takes part in one of the tests' tokens.
    pub(super) active: Option<Activity>,
    pub(super) rivals: Vec<Rival>,
}

/// The figures of one test; speeds are of the median round, shares the median of the rounds' own.
pub(super) struct Row {
    pub(super) speed: Spread,
    pub(super) bytes: f64,
    macs: f64,
    read: Spread,
    dots: Spread,
    cached: Spread,
    of_read: f64,
    of_dots: f64,
    of_cached: f64,
    /// Tokens a second.
    pub(super) ceiling: Spread,
    /// Which one it is, in most rounds.
    pub(super) limit: &'static str,
    pub(super) of_ceiling: Spread,
    pub(super) joules: Option<f64>,
}

impl Row {
    pub(super) fn of(measured: &Measured, cost: &Cost, dim: usize) -> Self {
        let (bytes, macs) = measured.cost(cost, dim);
        let joules: Option<Vec<f64>> = measured.rounds.iter().map(|round| round.joules).collect();
        let memory =
            measured.rounds.iter().filter(|round| measured.ceiling(cost, dim, round).1 == "memory").count();
        let limit = match measured.test.work {
            Work::Prompt(_) | Work::Vectors { .. } => "int8",
            Work::Text { .. } if 2 * memory >= measured.rounds.len() => "memory",
            Work::Text { .. } => "kernels",
        };
        Self {
            speed: measured.each(|round| round.speed),
            bytes,
            macs,
            read: measured.each(|round| round.ceilings.read),
            dots: measured.each(|round| round.ceilings.dots),
            cached: measured.each(|round| round.ceilings.cached),
            of_read: measured.each(|round| round.speed * bytes / round.ceilings.read).median,
            of_dots: measured.each(|round| round.speed * macs / round.ceilings.dots).median,
            of_cached: measured.each(|round| round.speed * macs / round.ceilings.cached).median,
            ceiling: measured.each(|round| measured.ceiling(cost, dim, round).0),
            limit,
            of_ceiling: measured.each(|round| round.speed / measured.ceiling(cost, dim, round).0),
            joules: joules.map(|joules| Spread::of(joules).median),
        }
    }

    /// Texts a second, of a test that makes vectors.
    fn texts(&self, test: &Test) -> Option<f64> {
        match test.work {
            Work::Vectors { tokens, .. } => Some(self.speed.median / tokens as f64),
            _ => None,
        }
    }
}

impl Report {
    /// `Texts a second: emb128 x64 31.0`; nothing where none became vectors.
    pub(super) fn texts_line(&self) -> Option<String> {
        let texts = self.tests.iter().filter_map(|measured| {
            let found = self.row(measured).texts(&measured.test)?;
            Some(format!("{} {}", measured.test, speed(found)))
        });
        let texts: Vec<String> = texts.collect();
        (!texts.is_empty()).then(|| format!("Texts a second: {}", texts.join(", ")))
    }

    /// `Parameters that take part in one of these tokens: 47% (…)`.
    pub(super) fn active_line(&self) -> Option<String> {
        let active = self.active.as_ref()?;
        let shares = active.shares().map(|(name, share)| format!("{name} {}", percent(share)));
        let all = percent(active.share());
        Some(format!("Parameters that take part in one of these tokens: {all} ({})", shares.join(", ")))
    }

    /// `Closed gates: tg128 70% (78% zeros behind them), 183 MB a token not read`; nothing where there are no gates that close.
    pub(super) fn units_line(&self) -> Option<String> {
        let tests = self.tests.iter().filter_map(|measured| {
            let each = |number: fn(&Units) -> f64| measured.each(|round| number(&round.units)).median;
            (each(|units| units.all) > 0.0).then(|| {
                let unread = each(|units| units.unread);
                format!(
                    "{} {} ({} zeros behind them), {:.0} MB a token not read",
                    measured.test,
                    percent(each(|units| units.closed)),
                    percent(each(|units| units.zeros)),
                    unread / 1e6
                )
            })
        });
        let tests: Vec<String> = tests.collect();
        (!tests.is_empty()).then(|| format!("Closed gates: {}", tests.join("; ")))
    }

    /// The figures of a test.
    pub(super) fn row(&self, measured: &Measured) -> Row {
        Row::of(measured, &self.cost, self.dim)
    }

    /// All that was found out.
    pub(super) fn of(bench: Bench, path: &Path, note: Option<&str>, rivals: Vec<Rival>) -> Outcome<Self> {
        let Start { memory, .. } = bench.start;
        // The memory that is read for the ceiling is the benchmark's, not the model's.
        let without = machine::peak_memory().map(|peak| peak.saturating_sub(bench.region.len() as u64));
        let active = bench.activity()?;
        Ok(Self {
            model: path.display().to_string(),
            machine: bench.machine,
            date: date::utc(date::now()),
            note: note.map(str::to_owned),
            cpu: bench.model.cpu_name(),
            packing: bench.model.packing(),
            kv: (bench.model.kv(), bench.model.config().kv_bytes(bench.model.kv())),
            weights: bench.model.cost().ternary_macs,
            peak: without.max(memory),
            start: bench.start,
            region: bench.region.len(),
            meter: bench.meter.map(|meter| meter.source()),
            cost: bench.model.cost(),
            dim: bench.model.config().dim,
            tests: bench.tests,
            active,
            rivals,
        })
    }

    /// One line: the machine, the instruction set, the packing, the cache, the day.
    pub(super) fn machine_line(&self) -> String {
        let day = self.date.replace('T', " ").replace('Z', " UTC");
        let (kv, bytes) = self.kv;
        let packing = self.packing.name();
        format!("{}, {}, {packing}, kv {kv} ({bytes} B/token), {day}", self.machine.line(), self.cpu)
    }

    /// Our test that measures the same.
    pub(super) fn ours(&self, theirs: &RivalTest) -> Option<&Measured> {
        self.tests.iter().find(|measured| theirs.is(&measured.test))
    }

    /// How many times as fast as theirs ours is, round by round.
    pub(super) fn ratio(&self, theirs: &RivalTest) -> Option<Spread> {
        let ours = self.ours(theirs)?;
        (ours.rounds.len() == theirs.speeds.len()).then(|| {
            Spread::of(ours.rounds.iter().zip(&theirs.speeds).map(|(ours, theirs)| ours.speed / theirs))
        })
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n{}\n", self.model, self.machine_line());
        if let Some(note) = &self.note {
            let _ = writeln!(text, "{note}");
        }
        let Start { load, first_token, memory } = self.start;
        let _ = writeln!(
            text,
            "\n{} ternary weights; loaded in {:.3} s, first token after {:.3} s; peak memory {} (until then {})\n",
            short(self.weights.into()),
            load.as_secs_f64(),
            first_token.as_secs_f64(),
            mib(self.peak),
            mib(memory),
        );
        text.push_str(
            "| test | threads | tokens/s | from – to | MB/token | GB/s | of memory | GMAC/s | of int8 | of kernels | ceiling tokens/s | of ceiling | J/token |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for measured in &self.tests {
            let row = self.row(measured);
            let Spread { median, least, most } = row.speed;
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} – {} | {:.1} | {:.1} | {} | {:.1} | {} | {} | {} ({}) | {} | {} |",
                measured.test,
                measured.test.threads,
                speed(median),
                speed(least),
                speed(most),
                row.bytes / 1e6,
                median * row.bytes / 1e9,
                percent(row.of_read),
                median * row.macs / 1e9,
                percent(row.of_dots),
                percent(row.of_cached),
                speed(row.ceiling.median),
                row.limit,
                percent(row.of_ceiling.median),
                row.joules.map_or("–".to_owned(), |joules| format!("{joules:.3}")),
            );
        }
        for line in [self.texts_line(), self.units_line()].into_iter().flatten() {
            let _ = writeln!(text, "\n{line}");
        }
        if let Some(line) = self.active_line() {
            let _ = writeln!(text, "\n{line}");
        }
        text.push_str("\nCeilings, measured before and after every repetition:\n\n");
        text.push_str("| threads | rows | memory GB/s | int8 GMAC/s | kernels in cache GMAC/s |\n|--:|--:|--:|--:|--:|\n");
        let mut told = Vec::new();
        for measured in &self.tests {
            let key = (measured.test.threads, measured.test.rows());
            if told.contains(&key) {
                continue;
            }
            told.push(key);
            let row = self.row(measured);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                key.0,
                key.1,
                giga(row.read),
                giga(row.dots),
                giga(row.cached)
            );
        }
        for rival in &self.rivals {
            let _ = writeln!(text, "\n## against `{}`\n", rival.command());
            text.push_str("| test | threads | tern tokens/s | theirs | from – to | ratio | from – to |\n|---|--:|--:|--:|--:|--:|--:|\n");
            for theirs in &rival.results {
                let Spread { median, least, most } = Spread::of(theirs.speeds.iter().copied());
                let ours = self.ours(theirs).map(|ours| speed(ours.each(|round| round.speed).median));
                let ratio = self.ratio(theirs);
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {} | {} – {} | {} | {} |",
                    theirs.name,
                    theirs.threads.map_or("–".to_owned(), |threads| threads.to_string()),
                    ours.unwrap_or("–".into()),
                    speed(median),
                    speed(least),
                    speed(most),
                    ratio.map_or("–".to_owned(), |ratio| format!("{:.2}×", ratio.median)),
                    ratio.map_or("–".to_owned(), |ratio| format!("{:.2} – {:.2}", ratio.least, ratio.most)),
                );
            }
        }
        match &self.meter {
            Ok(source) => writeln!(text, "\nenergy: {source}, the whole processor's"),
            Err(why) => writeln!(text, "\nenergy: null ({why})"),
        }
        .expect("a string takes all");
        text
    }

    pub(super) fn json(&self) -> Value {
        let mut machine = self.machine.json();
        machine["kernel_used"] = json!(self.cpu);
        json!({
            "model": self.model,
            "weights": self.weights,
            "packing": self.packing.name(),
            "kv": self.kv.0.to_string(),
            "kv_bytes_per_token": self.kv.1,
            "machine": machine,
            "date": self.date,
            "note": self.note,
            "load_ms": ms(self.start.load),
            "first_token_ms": ms(self.start.first_token),
            "memory_bytes": { "first_token": self.start.memory, "peak": self.peak },
            "energy": { "source": self.meter.as_ref().ok(), "missing": self.meter.as_ref().err() },
            "cost": {
                "trits_bytes": self.cost.trits,
                "scales_bytes": self.cost.scales,
                "head_bytes": self.cost.head,
                "embedding_bytes": self.cost.embedding,
                "position_bytes": self.cost.position,
                "ternary_macs": self.cost.ternary_macs,
                "head_macs": self.cost.head_macs,
                "position_macs": self.cost.position_macs,
            },
            "read_bytes": self.region,
            "tests": self.tests.iter().map(|measured| self.test_json(measured)).collect::<Vec<_>>(),
            "active": self.active.as_ref().map(active_json),
            "rivals": self.rivals.iter().map(|rival| json!({
                "command": rival.command(),
                "tests": rival.results.iter().map(|theirs| self.rival_json(theirs)).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })
    }

    /// One test, with the keys of llama-bench where there are such.
    fn test_json(&self, measured: &Measured) -> Value {
        let row = self.row(measured);
        let test = &measured.test;
        let (prompt, text, sequences) = match test.work {
            Work::Prompt(tokens) => (tokens, 0, 1),
            Work::Text { tokens, sequences } => (0, tokens, sequences),
            Work::Vectors { tokens, texts } => (tokens, 0, texts),
        };
        json!({
            "test": test.to_string(),
            "n_prompt": prompt,
            "n_gen": text,
            "n_depth": test.depth,
            "n_sequences": sequences,
            "n_threads": test.threads,
            "avg_ts": digits(row.speed.median),
            "min_ts": digits(row.speed.least),
            "max_ts": digits(row.speed.most),
            "samples_ts": measured.rounds.iter().map(|round| digits(round.speed)).collect::<Vec<_>>(),
            "texts_per_s": row.texts(test).map(digits),
            "bytes_per_token": digits(row.bytes),
            "head_bytes_per_step": digits(measured.each(|round| round.head.bytes).median),
            "head_rows_per_step": digits(measured.each(|round| round.head.rows).median),
            "closed_gates": digits(measured.each(|round| round.units.closed).median),
            "zeros_behind_gates": digits(measured.each(|round| round.units.zeros).median),
            "unread_bytes_per_token": digits(measured.each(|round| round.units.unread).median),
            "gb_per_s": digits(row.speed.median * row.bytes / 1e9),
            "gmac_per_s": digits(row.speed.median * row.macs / 1e9),
            "ceilings": {
                "memory_gb_per_s": spread(row.read, 1e9),
                "int8_gmac_per_s": spread(row.dots, 1e9),
                "kernels_gmac_per_s": spread(row.cached, 1e9),
                "tokens_per_s": digits(row.ceiling.median),
                "lowest": row.limit,
            },
            "shares": {
                "memory": digits(row.of_read),
                "int8": digits(row.of_dots),
                "kernels": digits(row.of_cached),
                "ceiling": spread(row.of_ceiling, 1.0),
            },
            "joules_per_token": row.joules.map(digits),
        })
    }

    fn rival_json(&self, theirs: &RivalTest) -> Value {
        let speed = Spread::of(theirs.speeds.iter().copied());
        json!({
            "test": theirs.name,
            "n_threads": theirs.threads,
            "avg_ts": digits(speed.median),
            "min_ts": digits(speed.least),
            "max_ts": digits(speed.most),
            "samples_ts": theirs.speeds.iter().map(|&speed| digits(speed)).collect::<Vec<_>>(),
            "ratio": self.ratio(theirs).map(|ratio| spread(ratio, 1.0)),
        })
    }

    pub(super) fn csv(&self) -> String {
        let mut text = "program,test,threads,tokens_per_s,least,most,bytes_per_token,gb_per_s,gmac_per_s,memory_gb_per_s,\
                        int8_gmac_per_s,kernels_gmac_per_s,of_memory,of_int8,of_kernels,ceiling_tokens_per_s,ceiling,of_ceiling,\
                        joules_per_token,ratio\n"
            .to_owned();
        for measured in &self.tests {
            let row = self.row(measured);
            let test = &measured.test;
            let mut cells = vec!["tern".to_owned(), test.to_string(), test.threads.to_string()];
            let speed = row.speed;
            cells.extend([speed.median, speed.least, speed.most, row.bytes].map(cell));
            cells.extend([speed.median * row.bytes / 1e9, speed.median * row.macs / 1e9].map(cell));
            cells.extend([row.read, row.dots, row.cached].map(|ceiling| cell(ceiling.median / 1e9)));
            cells.extend([row.of_read, row.of_dots, row.of_cached, row.ceiling.median].map(cell));
            cells.extend([row.limit.to_owned(), cell(row.of_ceiling.median)]);
            cells.extend([row.joules.map_or(String::new(), cell), String::new()]);
            let _ = writeln!(text, "{}", cells.join(","));
        }
        for rival in &self.rivals {
            for theirs in &rival.results {
                let speed = Spread::of(theirs.speeds.iter().copied());
                let threads = theirs.threads.map_or(String::new(), |threads| threads.to_string());
                let mut cells = vec![quoted(rival.command()), quoted(&theirs.name), threads];
                cells.extend([speed.median, speed.least, speed.most].map(cell));
                cells.resize(19, String::new());
                cells.push(self.ratio(theirs).map_or(String::new(), |ratio| cell(ratio.median)));
                let _ = writeln!(text, "{}", cells.join(","));
            }
        }
        text
    }
}

/// A speed as people read it: three digits that matter.
pub(super) fn speed(x: f64) -> String {
    let decimals = if x >= 100.0 {
        0
    } else if x >= 10.0 {
        1
    } else {
        2
    };
    format!("{x:.decimals$}")
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

pub(super) fn mib(bytes: Option<u64>) -> String {
    bytes.map_or("unknown".into(), |bytes| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)))
}

/// `33.1 (30.0 – 35.2)`, in 10⁹.
fn giga(of: Spread) -> String {
    format!("{:.1} ({:.1} – {:.1})", of.median / 1e9, of.least / 1e9, of.most / 1e9)
}

/// Five digits that matter, for programs.
fn digits(x: f64) -> f64 {
    format!("{x:.4e}").parse().unwrap_or(x)
}

fn spread(of: Spread, unit: f64) -> Value {
    json!({"median": digits(of.median / unit), "least": digits(of.least / unit), "most": digits(of.most / unit)})
}

fn cell(x: f64) -> String {
    digits(x).to_string()
}

/// A CSV cell of a text that may hold anything (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
