//! What a run will take, before it begins: bytes of memory by counting, seconds by what this machine multiplies.

use std::time::Instant;

use tern_kernels::{Matrix, dense_product};

use crate::config::Run;
use crate::error::{Error, Result};
use crate::ops::Machine;
use crate::params::{Kind, Layout};

/// Bytes and operations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Of the student: weights, gradients, moments, prepared matrices, and what a batch keeps of every layer.
    pub student: u64,
    /// Of the teacher: its weights, its head once more, and what it keeps of a batch. 0 where it is not there.
    pub teacher: u64,
    /// Operations of a step's products.
    pub operations: f64,
}

impl Forecast {
    /// Of a run's model, and its teacher with the bytes of its file.
    pub fn of(
        run: &Run,
        config: &tern::Config,
        layout: &Layout,
        teacher: Option<(&tern::Config, u64)>,
    ) -> Result<Self> {
        let tern::Config { dim, hidden, vocab, layers, .. } = *config;
        let (q_dim, kv_dim, rows) = (config.q_dim(), config.kv_dim(), run.length * run.sequences);
        let floats = run.quantiser()?.floats() || run.quantise_steps > 0;
        let matrices: usize = layout
            .slices
            .iter()
            .filter(|slice| slice.kind == Kind::Matrix)
            .map(|slice| slice.range.len())
            .sum();
        // Parameters, two moments, the step's gradient and a batch's.
        let numbers = layout.len * 4 * (4 + usize::from(run.accumulate > 1));
        let prepared = if floats { 8 * matrices } else { matrices * 5 / 4 };
        let code = if floats { 4 } else { 1 };
        let inputs = (2 * dim + q_dim + hidden) * code;
        let saved = 4 * (2 * q_dim + 2 * kv_dim + dim + 2 * hidden) + inputs;
        let kept = if run.recompute { 1 } else { layers };
        let room = 4 * (hidden + 5 * q_dim + 5 * kv_dim + 5 * dim);
        let logits = 4 * vocab * (dim + 256 * if run.teacher.is_some() { 2 } else { 1 });
        let student = numbers + prepared + rows * (saved * kept + 4 * dim * (layers + 1) + room) + logits;
        let each = |c: &tern::Config| {
            c.layers * c.dim * (2 * c.q_dim() + 2 * c.kv_dim() + 3 * c.hidden) + c.vocab * c.dim
        };
        let steps = (rows * run.accumulate) as f64;
        let mut forecast =
            Self { student: student as u64, teacher: 0, operations: 6.0 * steps * each(config) as f64 };
        if let Some((teacher, bytes)) = teacher {
            let tern::Config { dim, hidden, vocab, layers, .. } = *teacher;
            let caches = 8 * layers * teacher.kv_dim();
            let buffers = 4 * (4 * dim + 4 * teacher.q_dim() + 4 * teacher.kv_dim() + 3 * hidden);
            forecast.teacher = bytes + (4 * vocab * dim + rows * (caches + buffers)) as u64;
            forecast.operations += 2.0 * steps * each(teacher) as f64;
        }
        Ok(forecast)
    }

    /// The same with so many bytes more, of what stays as it is.
    pub fn beside(mut self, bytes: usize) -> Self {
        self.student += bytes as u64;
        self
    }

    /// Refuses a run that memory cannot hold.
    pub fn check(&self, free: Option<u64>) -> Result<()> {
        let gb = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
        let all = self.student + self.teacher;
        if let Some(free) = free.filter(|free| *free < all && self.teacher == 0) {
            return Err(Error::Input(format!(
                "the run needs {} of memory, and {} are free; fewer `sequences`, `recompute = true` or a smaller model need \
                 less, and of a model that is there an adapter (`lora`) far less",
                gb(all),
                gb(free)
            )));
        }
        if let Some(free) = free.filter(|free| *free < all) {
            let what = format!(
                "the run needs {} of memory ({} for the student, {} for the teacher), and {} are free; fewer `sequences`, \
                 `recompute = true` or a smaller teacher need less",
                gb(all),
                gb(self.student),
                gb(self.teacher),
                gb(free)
            );
            return Err(Error::key("teacher", what));
        }
        Ok(())
    }

    /// What a person is told.
    pub fn text(&self, steps: u64, rate: f64) -> String {
        let seconds = self.operations / rate * steps as f64;
        let time = if seconds < 5400.0 {
            format!("{:.0} minutes", (seconds / 60.0).ceil())
        } else {
            format!("{:.1} hours", seconds / 3600.0)
        };
        format!(
            "about {:.0} MB of memory ({:.0} for the teacher) and about {time} for {steps} steps, at {:.0} billion operations a \
             second",
            (self.student + self.teacher) as f64 / 1e6,
            self.teacher as f64 / 1e6,
            rate / 1e9
        )
    }
}

/// Operations a second of products of floats, tried for a moment.
pub fn rate(on: Machine) -> f64 {
    const SIZE: usize = 256;
    let (a, b) = (vec![1f32; SIZE * SIZE], vec![1f32; SIZE * SIZE]);
    let mut out = vec![0f32; SIZE * SIZE];
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < 0.2 {
        dense_product(on.cpu, on.pool, Matrix::new(&a, SIZE), Matrix::new(&b, SIZE), &mut out, SIZE, false);
        count += 1;
    }
    2.0 * (SIZE * SIZE * SIZE) as f64 * f64::from(count) / start.elapsed().as_secs_f64()
}
