//! `report.html`: one page about a run, drawn from its metrics: loss, schedule, speed, shares of -1, 0 and 1, samples.

use std::fmt::Write;

use crate::config::Run;
use crate::error::Result;
use crate::metrics::{self, Evaluation, Line, Step, Validation};
use crate::svg::{Svg, escaped};

/// Width and height of a drawing, and its margins.
const SIZE: (f64, f64) = (760.0, 260.0);
const LEFT: f64 = 56.0;
const BELOW: f64 = 28.0;
/// Of curves whose number nobody knows beforehand.
const COLOURS: [&str; 6] = ["#36c", "#c33", "#383", "#a50", "#808", "#077"];

/// A curve: its colour, its name and its points.
type Curve<'a> = (&'a str, &'a str, Vec<(f64, f64)>);

/// Curves over steps.
fn drawing(title: &str, curves: &[Curve]) -> String {
    let points = || curves.iter().flat_map(|(_, _, points)| points.iter().copied());
    let fold =
        |start: f64, pick: fn(f64, f64) -> f64, of: fn((f64, f64)) -> f64| points().map(of).fold(start, pick);
    let (x0, x1) = (fold(f64::MAX, f64::min, |p| p.0), fold(f64::MIN, f64::max, |p| p.0));
    let (y0, y1) = (fold(f64::MAX, f64::min, |p| p.1), fold(f64::MIN, f64::max, |p| p.1));
    if points().count() < 2 || x1 <= x0 {
        return String::new();
    }
    let (y0, y1) = if y1 > y0 { (y0, y1) } else { (y0 - 1.0, y1 + 1.0) };
    let (width, height) = (SIZE.0 - LEFT - 8.0, SIZE.1 - BELOW - 24.0);
    let x = |value: f64| LEFT + (value - x0) / (x1 - x0) * width;
    let y = |value: f64| 24.0 + (y1 - value) / (y1 - y0) * height;
    let mut svg = Svg::new([SIZE.0, SIZE.1], &format!("aria-label=\"{title}\""));
    for i in 0..=4 {
        let value = y0 + (y1 - y0) * f64::from(i) / 4.0;
        let at = y(value);
        let label = if value.abs() >= 0.1 { format!("{value:.2}") } else { format!("{value:.1e}") };
        svg.path(format_args!("M{LEFT} {at:.1}H{:.1}", LEFT + width), "class=\"grid\"");
        svg.text([LEFT - 6.0, at + 4.0], "text-anchor=\"end\"", &label);
        let step = x0 + (x1 - x0) * f64::from(i) / 4.0;
        svg.text([x(step), SIZE.1 - 8.0], "text-anchor=\"middle\"", &format!("{step:.0}"));
    }
    let mut name_at = LEFT;
    for (colour, name, points) in curves.iter().filter(|(_, _, points)| !points.is_empty()) {
        svg.curve(points.iter().map(|&(a, b)| [x(a), y(b)]), &format!("class=\"line\" stroke=\"{colour}\""));
        svg.text([name_at, 14.0], &format!("fill=\"{colour}\""), name);
        name_at += 9.0 * name.len() as f64 + 20.0;
    }
    svg.finish()
}

/// At most this many points, each the mean of its neighbours.
fn thinned(points: Vec<(f64, f64)>, most: usize) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(most).max(1);
    let mean = |part: &[(f64, f64)]| {
        let (x, y) = part.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (x / part.len() as f64, y / part.len() as f64)
    };
    points.chunks(size).map(mean).collect()
}

/// The page.
pub fn page(run: &Run, lines: &[Line]) -> String {
    let steps: Vec<Step> = lines
        .iter()
        .filter_map(|line| if let Line::Step(step) = line { Some(*step) } else { None })
        .collect();
    let validations: Vec<&Validation> = lines
        .iter()
        .filter_map(|line| if let Line::Validation(found) = line { Some(found) } else { None })
        .collect();
    let curve =
        |of: fn(&Step) -> f64| thinned(steps.iter().map(|step| (step.step as f64, of(step))).collect(), 400);
    let held_out = validations.iter().map(|found| (found.step as f64, found.loss)).collect();
    let mut html = String::from(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>tern train</title>\n<style>\n\
         body { font: 15px/1.5 system-ui, sans-serif; max-width: 780px; margin: 2em auto; padding: 0 1em }\n\
         svg { width: 100%; margin: 0 0 1em } text { font-size: 12px } .grid { stroke: #ddd }\n\
         .line { fill: none; stroke-width: 1.6 } table { border-collapse: collapse } td, th { padding: 2px 10px; text-align: right }\n\
         pre { white-space: pre-wrap; background: #f4f4f4; padding: 8px }\n</style>\n<h1>A training run</h1>\n",
    );
    if let Some(last) = steps.last() {
        let _ = writeln!(
            html,
            "<p>{} of {} steps, {:.2} M tokens, {:.0} s, {:.0} tokens/s on average. {}.</p>",
            last.step,
            run.steps,
            last.tokens as f64 / 1e6,
            last.seconds,
            last.tokens as f64 / last.seconds.max(1e-9),
            if run.ternary { "Ternary" } else { "The float twin" },
        );
    }
    if let Some(last) = validations.last() {
        let _ = writeln!(
            html,
            "<p>Held-out loss {:.4} nats a token, {:.4} bits a character.</p>",
            last.loss, last.bits_per_char
        );
    }
    html += "<h2>Loss</h2>\n";
    html +=
        &drawing("loss", &[("#36c", "training", curve(|step| step.loss)), ("#c33", "held out", held_out)]);
    let tasks: Vec<&Evaluation> = lines
        .iter()
        .filter_map(|line| if let Line::Evaluation(found) = line { Some(found) } else { None })
        .collect();
    if let Some(last) = tasks.last() {
        let mut curves: Vec<Curve> = Vec::new();
        let _ = writeln!(html, "<h2>Tasks</h2>\n<table><tr><th>task<th>metric<th>value<th>±<th>items</tr>");
        // Those of the last evaluation, and how each came there.
        for (nth, found) in tasks.iter().filter(|found| found.step == last.step).enumerate() {
            let of = tasks.iter().filter(|other| other.task == found.task);
            let points = of.map(|other| (other.step as f64, other.value)).collect();
            curves.push((COLOURS[nth % COLOURS.len()], &found.task, points));
            let Evaluation { task, metric, value, error, items, .. } = found;
            let _ = writeln!(
                html,
                "<tr><td>{}<td>{}<td>{value:.4}<td>{error:.4}<td>{items}</tr>",
                escaped(task),
                escaped(metric)
            );
        }
        html += "</table>\n";
        html += &drawing("tasks", &curves);
    }
    html += "<h2>Learning rate</h2>\n";
    html += &drawing("learning rate", &[("#383", "rate", curve(|step| f64::from(step.rate)))]);
    html += "<h2>Gradient and speed</h2>\n";
    html += &drawing("gradient", &[("#a50", "norm of the gradient", curve(|step| step.gradient))]);
    html += &drawing("speed", &[("#555", "tokens/s", curve(|step| step.tokens_per_second))]);
    if let Some(last) = validations.last().filter(|last| run.ternary && !last.trits.is_empty()) {
        html += "<h2>Weights</h2>\n<table><tr><th>layer<th>−1<th>0<th>+1</tr>\n";
        for (layer, [minus, zero, plus]) in last.trits.iter().enumerate() {
            let shares = [minus, zero, plus].map(|share| format!("<td>{:.1}%", 100.0 * share)).concat();
            let _ = writeln!(html, "<tr><td>{layer}{shares}</tr>");
        }
        html += "</table>\n";
    }
    html += "<h2>Samples</h2>\n";
    for line in lines {
        if let Line::Sample { step, text } = line {
            let _ = writeln!(html, "<p>Step {step}</p>\n<pre>{}</pre>", escaped(text));
        }
    }
    html
}

/// Writes the page of a run.
pub fn write(run: &Run) -> Result<()> {
    let page = page(run, &metrics::read(&run.out)?);
    Ok(tern::file::Whole::begin(&run.out.join("report.html"))?.publish(page.as_bytes())?)
}
