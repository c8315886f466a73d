//! What `tern train --monitor` shows: everything that a run has told so far, drawn into a frame of any size.

use std::collections::VecDeque;
use std::time::Duration;

use indicatif::HumanDuration;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, LineGauge, Paragraph, Wrap};
use tern_train::metrics::{self, Step};
use tern_train::run::Event;

/// Points of a curve, above which neighbours are joined: no terminal has more columns of dots.
const POINTS: usize = 2048;
/// Steps that the time left is reckoned from.
const RECENT: usize = 50;

/// A curve that never grows beyond [`POINTS`].
#[derive(Default)]
struct Curve {
    points: Vec<(f64, f64)>,
    /// How many numbers make a point.
    each: u64,
    /// The point in the making: sums and their count.
    open: (f64, f64, u64),
}

impl Curve {
    fn push(&mut self, x: f64, y: f64) {
        if !y.is_finite() {
            return;
        }
        let (sum_x, sum_y, count) = &mut self.open;
        (*sum_x, *sum_y, *count) = (*sum_x + x, *sum_y + y, *count + 1);
        if *count >= self.each.max(1) {
            self.points.push((*sum_x / *count as f64, *sum_y / *count as f64));
            self.open = Default::default();
        }
        if self.points.len() >= POINTS {
            let mean = |pair: &[(f64, f64)]| ((pair[0].0 + pair[1].0) / 2.0, (pair[0].1 + pair[1].1) / 2.0);
            self.points = self.points.chunks_exact(2).map(mean).collect();
            self.each = 2 * self.each.max(1);
        }
    }
}

/// The state of the view.
#[derive(Default)]
pub(super) struct Board {
    head: String,
    steps: u64,
    losses: Curve,
    rates: Curve,
    held_out: Curve,
    bits: Option<f64>,
    last: Option<Step>,
    /// Step and seconds of training so far.
    recent: VecDeque<(u64, f64)>,
    sample: Option<(u64, String)>,
    note: String,
}

impl Board {
    /// With the curves of what was done before, when a run goes on.
    pub(super) fn resumed(lines: Vec<metrics::Line>) -> Self {
        let mut board = Self::default();
        for line in lines {
            match line {
                metrics::Line::Step(step) => board.step(step),
                metrics::Line::Validation(found) => board.tell(Event::Validation(found)),
                metrics::Line::Evaluation(found) => board.tell(Event::Evaluation(found)),
                metrics::Line::Sample { step, text } => board.tell(Event::Sample { step, text }),
            }
        }
        board.recent.clear();
        board
    }

    fn step(&mut self, step: Step) {
        self.losses.push(step.step as f64, step.loss);
        self.rates.push(step.step as f64, f64::from(step.rate));
        self.recent.push_back((step.step, step.seconds));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.last = Some(step);
    }

    pub(super) fn tell(&mut self, event: Event) {
        match event {
            Event::Note(note) => self.note = note,
            Event::Warning(warning) => self.note = format!("warning: {warning}"),
            Event::Begin { step, steps, params, train, cpu, threads, .. } => {
                self.steps = steps;
                // What a run wrote beyond its last checkpoint comes again.
                for curve in [&mut self.losses, &mut self.rates, &mut self.held_out] {
                    curve.points.retain(|point| point.0 <= step as f64);
                }
                self.head = format!(
                    "{:.2} M parameters, {:.2} M tokens to train on, {cpu}, {threads} threads",
                    params as f64 / 1e6,
                    train.tokens as f64 / 1e6
                );
            }
            Event::Step(step) => self.step(step),
            Event::Validation(found) => {
                self.held_out.push(found.step as f64, found.loss);
                self.bits = Some(found.bits_per_char);
            }
            Event::Evaluation(found) => self.note = found.to_string(),
            Event::Sample { step, text } => self.sample = Some((step, text)),
            Event::Saved(path) => self.note = format!("saved {}", path.display()),
        }
    }

    /// From the pace of the last steps.
    fn left(&self) -> Option<Duration> {
        let (&(first, from), &(last, to)) = (self.recent.front()?, self.recent.back()?);
        let pace = (to - from) / last.checked_sub(first).filter(|n| *n > 0)? as f64;
        Duration::try_from_secs_f64(pace * self.steps.saturating_sub(last) as f64).ok()
    }

    fn figures(&self) -> String {
        let Some(step) = &self.last else { return "the first step is under way".to_owned() };
        let mut text = format!("loss {:.4}", step.loss);
        if let Some((_, loss)) = self.held_out.points.last() {
            text += &format!(" · held out {loss:.4}");
        }
        if let Some(bits) = self.bits {
            text += &format!(" · {bits:.4} bits/char");
        }
        text += &format!(
            " · {:.0} tokens/s · rate {:.2e} · gradient {:.2}",
            step.tokens_per_second, step.rate, step.gradient
        );
        if let Some(left) = self.left() {
            text += &format!(" · {} left", HumanDuration(left));
        }
        text
    }

    pub(super) fn draw(&self, frame: &mut Frame) {
        let rows = [
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(2),
            Constraint::Fill(3),
            Constraint::Fill(1),
            Constraint::Length(1),
        ];
        let [head, gauge, figures, charts, sample, foot] = Layout::vertical(rows).areas(frame.area());
        let bold = Style::new().add_modifier(Modifier::BOLD);
        frame.render_widget(Line::styled(format!("tern train · {}", self.head), bold), head);
        let done = self.last.map_or(0, |step| step.step);
        let share = (done as f64 / self.steps.max(1) as f64).clamp(0.0, 1.0);
        let label = format!("{done} of {}", self.steps);
        frame.render_widget(
            LineGauge::default().ratio(share).label(label).filled_style(Style::new().fg(Color::Cyan)),
            gauge,
        );
        frame.render_widget(Paragraph::new(self.figures()).wrap(Wrap { trim: true }), figures);

        let [left, right] = Layout::horizontal([Constraint::Fill(2), Constraint::Fill(1)]).areas::<2>(charts);
        let losses = [("training", Color::Blue, &self.losses), ("held out", Color::Red, &self.held_out)];
        chart(frame, left, "loss", &losses, |value| format!("{value:.2}"));
        let rates = [("", Color::Green, &self.rates)];
        chart(frame, right, "learning rate", &rates, |value| format!("{value:.1e}"));

        let (title, text) = match &self.sample {
            Some((step, text)) => (format!("sample of step {step}"), text.as_str()),
            None => ("samples: `sample_every` asks for them".to_owned(), ""),
        };
        let text: Vec<Line> = text.lines().map(Line::raw).collect();
        frame.render_widget(
            Paragraph::new(text).wrap(Wrap { trim: false }).block(Block::bordered().title(title)),
            sample,
        );
        let dim = Style::new().add_modifier(Modifier::DIM);
        frame.render_widget(Line::styled(format!("Ctrl-C saves and ends · {}", self.note), dim), foot);
    }
}

fn chart(
    frame: &mut Frame,
    area: Rect,
    title: &str,
    curves: &[(&'static str, Color, &Curve)],
    label: fn(f64) -> String,
) {
    let points = || curves.iter().flat_map(|(.., curve)| curve.points.iter().copied());
    let range = |of: fn((f64, f64)) -> f64| {
        let (low, high) =
            points().map(of).fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
        if low < high { [low, high] } else { [low.min(0.0), low.min(0.0) + low.abs().clamp(1e-9, 1e9)] }
    };
    let ([x0, x1], [y0, y1]) = match points().next() {
        Some(_) => (range(|point| point.0), range(|point| point.1)),
        None => ([0.0, 1.0], [0.0, 1.0]),
    };
    let sets = curves.iter().filter(|(.., curve)| !curve.points.is_empty()).map(|(name, colour, curve)| {
        Dataset::default()
            .name(*name)
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Style::new().fg(*colour))
            .data(&curve.points)
    });
    let grey = Style::new().fg(Color::DarkGray);
    let ends = |low: f64, high: f64, label: fn(f64) -> String| [label(low), label(high)];
    let x = Axis::default().bounds([x0, x1]).style(grey).labels(ends(x0, x1, |value| format!("{value:.0}")));
    let y = Axis::default().bounds([y0, y1]).style(grey).labels(ends(y0, y1, label));
    frame.render_widget(
        Chart::new(sets.collect()).block(Block::bordered().title(title)).x_axis(x).y_axis(y),
        area,
    );
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use tern_train::corpus::Size;
    use tern_train::metrics::Validation;

    use super::*;

    fn step(step: u64, loss: f64) -> Step {
        Step {
            step,
            tokens: 4096 * step,
            epoch: 0,
            loss,
            rate: 1e-3 * (200 - step.min(200)) as f32 / 200.0,
            gradient: 0.5,
            divergence: None,
            preferred: None,
            margin: None,
            relation: None,
            tokens_per_second: 1234.0,
            seconds: 2.0 * step as f64,
        }
    }

    fn shown(board: &Board, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| board.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content().chunks(width.into());
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    fn board() -> Board {
        let mut board = Board::default();
        let size = Size { tokens: 2_500_000, documents: 9000 };
        let begin = Event::Begin {
            step: 0,
            steps: 200,
            params: 12_100_000,
            train: size,
            held_out: size,
            cpu: "scalar",
            threads: 2,
        };
        board.tell(begin);
        for nth in 1..=100u64 {
            board.tell(Event::Step(step(nth, 8.0 - nth as f64 / 20.0)));
            if nth.is_multiple_of(25) {
                let trits = vec![[0.3, 0.4, 0.3]];
                let loss = 8.1 - nth as f64 / 20.0;
                board.tell(Event::Validation(Validation {
                    step: nth,
                    loss,
                    bits_per_char: 1.25,
                    preferred: None,
                    trits,
                }));
            }
        }
        board.tell(Event::Sample { step: 100, text: "Once upon a time\nthere was a tern.".into() });
        board.tell(Event::Note("all is well".into()));
        board
    }

    #[test]
    fn curves_figures_samples_and_the_time_left_are_shown() {
        let text = shown(&board(), 110, 30);
        for words in [
            "12.10 M parameters, 2.50 M tokens to train on, scalar, 2 threads",
            "100 of 200",
            "loss 3.0000 · held out 3.1000 · 1.2500 bits/char · 1234 tokens/s · rate 5.00e-4 · gradient 0.50 · 3 minutes",
            "learning rate",
            "training",
            "7.95",
            "3.00",
            "sample of step 100",
            "there was a tern.",
            "Ctrl-C saves and ends · all is well",
        ] {
            assert!(text.contains(words), "`{words}` is missing in\n{text}");
        }
        let dots = text.chars().filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count();
        assert!(dots > 60, "{dots} cells of curves in\n{text}");
        // The loss falls: its curve begins above where it ends.
        let row = |column: usize| {
            text.lines().position(|line| {
                line.chars().nth(column).is_some_and(|c| ('\u{2801}'..='\u{28ff}').contains(&c))
            })
        };
        assert!(row(12).unwrap() < row(60).unwrap(), "{text}");
    }

    #[test]
    fn any_size_and_any_number_can_be_drawn() {
        for board in [&Board::default(), &board()] {
            for (width, height) in [(1, 1), (7, 3), (20, 5), (300, 100)] {
                shown(board, width, height);
            }
        }
        let mut odd = Board::default();
        for loss in [f64::NAN, f64::INFINITY, 2.0, 2.0, 1e300, -1e300, 0.0] {
            odd.tell(Event::Step(step(5, loss)));
        }
        shown(&odd, 80, 24);
    }

    #[test]
    fn a_long_run_keeps_its_shape_in_few_points() {
        let mut curve = Curve::default();
        for nth in 0..1_000_000 {
            curve.push(f64::from(nth), f64::from(nth) / 2.0);
        }
        assert!((POINTS / 2..POINTS).contains(&curve.points.len()), "{}", curve.points.len());
        assert!(curve.points.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(curve.points.iter().all(|(x, y)| (x / 2.0 - y).abs() < 1e-6));
    }
}
