//! A progress bar on standard error, where a person watches; nothing at all elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar of bytes with a word before it.
    pub(crate) fn new(word: &'static str) -> Self {
        // Hidden by itself where standard error is no terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style =
            "{msg} [{bar:30}] {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
        bar.set_style(
            ProgressStyle::with_template(style).expect("a template that parses").progress_chars("=> "),
        );
        bar.set_message(word);
        Self(bar)
    }

    /// A bar of steps.
    pub(crate) fn steps() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("[{bar:30}] {pos} of {len}: {msg}");
        bar.set_style(style.expect("a template that parses").progress_chars("=> "));
        Self(bar)
    }

    /// Begins the step after `done`, of how many.
    pub(crate) fn step(&mut self, done: usize, all: usize, what: String) {
        self.0.set_message(what);
        self.show(done as u64, all as u64);
    }

    /// Bytes done, of how many.
    pub(crate) fn show(&mut self, done: u64, all: u64) {
        if self.0.length() != Some(all) {
            self.0.set_length(all);
        }
        self.0.set_position(done);
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(self) {
        self.0.finish_and_clear();
    }
}
