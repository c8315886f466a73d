//! What the server counts, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tern::{Drafted, Load};

use crate::system;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of a histogram's buckets, in seconds.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// How long something took.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Counter; BUCKETS.len()],
    count: Counter,
    micros: Counter,
}

impl Histogram {
    pub(crate) fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(at) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.buckets[at].add(1);
        }
        self.count.add(1);
        self.micros.add(time.as_micros() as u64);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, help, "histogram");
        let mut sum = 0;
        for (bucket, bound) in self.buckets.iter().zip(BUCKETS) {
            sum += bucket.get();
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {sum}");
        }
        let count = self.count.get().max(sum);
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum {}", self.micros.get() as f64 / 1e6);
        let _ = writeln!(out, "{name}_count {count}");
    }
}

/// What is so at the moment.
#[derive(Debug, Default)]
pub(crate) struct Moment {
    /// Requests that hold a place: they run or wait.
    pub(crate) requests: usize,
    pub(crate) connections: usize,
    pub(crate) memory: usize,
    pub(crate) memory_limit: usize,
    pub(crate) log_dropped: Counter,
    /// Seconds since 1970.
    pub(crate) started: u64,
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Answers by status: 2xx, 4xx, 5xx.
    pub(crate) responses: [Counter; 3],
    /// Answers that ended well, were given up by their clients, ran out of time, failed.
    pub(crate) done: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) timed_out: Counter,
    pub(crate) failed: Counter,
    pub(crate) refused_busy: Counter,
    pub(crate) panics: Counter,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    prompts: Counter,
    prefix_hits: Counter,
    pub(crate) tokens: Counter,
    drafted: Counter,
    accepted: Counter,
    pub(crate) first_token: Histogram,
    pub(crate) next_token: Histogram,
    /// From a request's head to the last byte of its answer.
    pub(crate) request: Histogram,
    /// Of each loaded model.
    loads: Mutex<BTreeMap<String, Load>>,
}

impl Metrics {
    pub(crate) fn prompt(&self, tokens: usize, cached: usize) {
        self.prompts.add(1);
        self.prompt_tokens.add(tokens as u64);
        self.cached_tokens.add(cached as u64);
        self.prefix_hits.add(u64::from(cached > 0));
    }

    pub(crate) fn drafted(&self, drafted: Drafted) {
        self.drafted.add(drafted.tokens as u64);
        self.accepted.add(drafted.accepted as u64);
    }

    pub(crate) fn response(&self, status: u16) {
        match status {
            0..400 => self.responses[0].add(1),
            400..500 => self.responses[1].add(1),
            _ => self.responses[2].add(1),
        }
    }

    pub(crate) fn set_load(&self, model: &str, load: Load) {
        let mut loads = self.loads();
        match loads.get_mut(model) {
            Some(place) => *place = load,
            None => drop(loads.insert(model.to_owned(), load)),
        }
    }

    /// A model was unloaded.
    pub(crate) fn unloaded(&self, model: &str) {
        self.loads().remove(model);
    }

    fn loads(&self) -> MutexGuard<'_, BTreeMap<String, Load>> {
        self.loads.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn load(&self, model: &str) -> Load {
        self.loads().get(model).copied().unwrap_or_default()
    }

    /// Of all models together.
    fn whole_load(&self) -> Load {
        self.loads().values().fold(Load::default(), |all, one| Load {
            running: all.running + one.running,
            waiting: all.waiting + one.waiting,
            pages_used: all.pages_used + one.pages_used,
            pages_kept: all.pages_kept + one.pages_kept,
            pages: all.pages + one.pages,
            preempted: all.preempted + one.preempted,
            set_aside: all.set_aside + one.set_aside,
        })
    }

    /// The whole page.
    pub(crate) fn text(&self, moment: &Moment) -> String {
        let mut out = String::new();
        let load = self.whole_load();
        head(&mut out, "tern_responses_total", "HTTP answers by the class of their status", "counter");
        for (counter, class) in self.responses.iter().zip(["2xx", "4xx", "5xx"]) {
            let _ = writeln!(out, "tern_responses_total{{status=\"{class}\"}} {}", counter.get());
        }
        head(&mut out, "tern_answers_total", "Generated answers by how they ended", "counter");
        let ends = [&self.done, &self.cancelled, &self.timed_out, &self.failed];
        for (counter, end) in ends.into_iter().zip(["done", "cancelled", "timed_out", "failed"]) {
            let _ = writeln!(out, "tern_answers_total{{end=\"{end}\"}} {}", counter.get());
        }
        for (name, help, counter) in [
            (
                "tern_log_lines_dropped_total",
                "Lines of the log that could not be written",
                &moment.log_dropped,
            ),
            ("tern_refused_busy_total", "Requests refused because the queue was full", &self.refused_busy),
            ("tern_panics_total", "Mistakes of the server that were caught", &self.panics),
            ("tern_prompts_total", "Prompts read", &self.prompts),
            ("tern_prefix_hits_total", "Prompts of which a beginning was known", &self.prefix_hits),
            ("tern_prompt_tokens_total", "Tokens of prompts, known ones included", &self.prompt_tokens),
            ("tern_cached_tokens_total", "Tokens of prompts that were known", &self.cached_tokens),
            ("tern_generated_tokens_total", "Tokens written", &self.tokens),
            ("tern_draft_tokens_total", "Tokens guessed ahead", &self.drafted),
            ("tern_draft_accepted_tokens_total", "Tokens guessed ahead that were right", &self.accepted),
        ] {
            head(&mut out, name, help, "counter");
            let _ = writeln!(out, "{name} {}", counter.get());
        }
        head(
            &mut out,
            "tern_preemptions_total",
            "Answers that had to give their pages up and went on later",
            "counter",
        );
        let _ = writeln!(out, "tern_preemptions_total {}", load.preempted);
        let help = "Answers that gave their place to others because their readers did not keep up";
        head(&mut out, "tern_set_aside_total", help, "counter");
        let _ = writeln!(out, "tern_set_aside_total {}", load.set_aside);
        for (name, help, value) in [
            ("tern_requests_active", "Answers that run or wait, of all requests", moment.requests),
            ("tern_connections", "Open connections", moment.connections),
            ("tern_request_memory_bytes", "Memory that requests hold, as it is counted", moment.memory),
            ("tern_request_memory_limit_bytes", "Memory that all requests may hold", moment.memory_limit),
            ("tern_sequences_running", "Sequences in the batch", load.running),
            ("tern_sequences_waiting", "Sequences that wait for room", load.waiting),
            ("tern_kv_pages", "Pages of keys and values in all", load.pages),
            ("tern_kv_pages_used", "Pages that running sequences hold", load.pages_used),
            ("tern_kv_pages_kept", "Pages kept for prompts that begin alike", load.pages_kept),
        ] {
            head(&mut out, name, help, "gauge");
            let _ = writeln!(out, "{name} {value}");
        }
        head(&mut out, "tern_kv_used_ratio", "Share of the pages that running sequences hold", "gauge");
        let _ = writeln!(out, "tern_kv_used_ratio {}", load.pages_used as f64 / load.pages.max(1) as f64);
        let loads = self.loads();
        if loads.len() > 1 {
            let help = "Sequences in the batch of each loaded model";
            head(&mut out, "tern_model_sequences_running", help, "gauge");
            for (model, load) in loads.iter() {
                // A label's value has these three escaped.
                let model = model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = writeln!(out, "tern_model_sequences_running{{model=\"{model}\"}} {}", load.running);
            }
        }
        drop(loads);
        head(&mut out, "process_start_time_seconds", "When the server was started, since 1970", "gauge");
        let _ = writeln!(out, "process_start_time_seconds {}", moment.started);
        if let Some(bytes) = system::resident() {
            head(&mut out, "process_resident_memory_bytes", "Memory that the process holds", "gauge");
            let _ = writeln!(out, "process_resident_memory_bytes {bytes}");
        }
        head(&mut out, "tern_build_info", "The version of the server", "gauge");
        let _ = writeln!(out, "tern_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        self.first_token.write(&mut out, "tern_first_token_seconds", "From a request to its first token");
        self.request.write(&mut out, "tern_request_seconds", "From a request to the end of its answer");
        self.next_token.write(&mut out, "tern_next_token_seconds", "From one token of an answer to the next");
        out
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let metrics = Metrics::default();
        for ms in [1, 7, 7, 400, 1_000_000] {
            metrics.first_token.observe(Duration::from_millis(ms));
        }
        let text = metrics.text(&Moment { requests: 3, ..Moment::default() });
        for line in [
            "tern_first_token_seconds_bucket{le=\"0.005\"} 1",
            "tern_first_token_seconds_bucket{le=\"0.01\"} 3",
            "tern_first_token_seconds_bucket{le=\"300\"} 4",
            "tern_first_token_seconds_bucket{le=\"+Inf\"} 5",
            "tern_first_token_seconds_count 5",
            "tern_requests_active 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
