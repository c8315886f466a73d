//! The picture of a benchmark: tokens per second against threads, depth and batch, with the ceilings drawn in. It
//! has a background of its own and follows the reader's light or dark scheme where that is known.

mod labels;

use std::path::Path;

use tern_train::svg::{Svg, escaped};

use self::labels::{Area, CHARACTER, Labels, clipped, text_width};
use super::report::{Report, Row, speed};
use super::rival::Rival;
use super::test::{Spread, Test, Work};

/// Sizes in pixels.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 400.0;
/// Of a panel's axes.
const PANEL: (f64, f64) = (240.0, 210.0);
const FIRST_LEFT: f64 = 60.0;
const APART: f64 = 310.0;
const TOP: f64 = 92.0;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#24292f}.small{font-size:11px;fill:#57606a}.title{font-size:16px;font-weight:600}\
.paper{fill:#fff}.axis{stroke:#8c959f;fill:none}.grid{stroke:#d8dee4;fill:none}\
.prompt{stroke:#0969da;fill:#0969da}.text{stroke:#bc4c00;fill:#bc4c00}\
.curve{fill:none!important;stroke-width:2}.ceiling{stroke-dasharray:5 4;stroke-width:1.5}\
.other{fill:none!important;stroke-width:1.5}.figure{paint-order:stroke;stroke:#fff!important;stroke-width:3px}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.paper{fill:#0d1117}.figure{stroke:#0d1117!important}.axis{stroke:#6e7681}\
.grid{stroke:#30363d}.prompt{stroke:#58a6ff;fill:#58a6ff}.text{stroke:#f0883e;fill:#f0883e}}";

const SMALL: &str = "class=\"small\"";
const SMALL_MIDDLE: &str = "class=\"small\" text-anchor=\"middle\"";

/// One line of a panel.
struct Line {
    /// `prompt` or `text`: the colour.
    class: &'static str,
    mark: Mark,
    /// At each value of the panel's axis, if it was measured.
    points: Vec<Option<f64>>,
}

/// Whose speed a line is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// What the machine allows: dashed.
    Ceiling,
    /// Ours: points with their figures.
    Ours,
    /// Another program's: hollow squares.
    Other,
}

/// A quantity that is varied while the others stay.
struct Panel {
    title: &'static str,
    /// What stays.
    fixed: String,
    values: Vec<usize>,
    lines: Vec<Line>,
}

/// The whole picture.
pub(super) fn svg(report: &Report) -> String {
    let name = Path::new(&report.model).file_name().and_then(|name| name.to_str()).unwrap_or(&report.model);
    let name = clipped(name, WIDTH - 260.0, 9.5);
    let style = format!("xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\"");
    let mut out = Svg::new([WIDTH, HEIGHT], &style);
    let title = escaped(&format!("tern bench {name}: tokens per second against threads, depth and batch"));
    out.raw(format_args!("<title>{title}</title>\n<style>{STYLE}</style>"));
    out.rect([0.0, 0.0], [WIDTH, HEIGHT], "class=\"paper\" rx=\"8\"");
    out.text([20.0, 30.0], "class=\"title\"", &format!("{name}: tokens per second"));
    legend(report, &mut out);
    for (nth, panel) in panels(report).iter().enumerate() {
        draw(panel, FIRST_LEFT + APART * nth as f64, &mut out);
    }
    let words = "medians; dashed: the lowest ceiling measured beside each point (prompts: int8 products, texts: memory or kernels)";
    let words = report.note.as_ref().map_or(words.to_owned(), |note| format!("{words}; {note}"));
    // As long as the picture is wide.
    for (words, y) in [(report.machine_line(), HEIGHT - 26.0), (words, HEIGHT - 10.0)] {
        out.text([20.0, y], SMALL, &clipped(&words, WIDTH - 40.0, CHARACTER));
    }
    out.finish()
}

fn legend(report: &Report, out: &mut Svg) {
    let (prompt, text) = chosen(report);
    let mut x = 20.0;
    for (class, words, tokens) in [("prompt", "prompt of", prompt), ("text", "text of", text)] {
        if let Some(tokens) = tokens {
            out.circle([x + 5.0, 50.0], 4.0, &format!("class=\"{class}\""));
            out.text([x + 15.0, 54.5], "", &format!("{words} {tokens}"));
            x += 140.0;
        }
    }
    if !report.rivals.is_empty() {
        let commands: Vec<&str> = report.rivals.iter().map(Rival::command).collect();
        let words = format!("squares: {}", commands.join("; "));
        out.text([x, 54.0], SMALL, &clipped(&words, WIDTH - 20.0 - x, CHARACTER));
    }
}

/// The first prompt and the first text that were measured: one line each.
fn chosen(report: &Report) -> (Option<usize>, Option<usize>) {
    let tests = || report.tests.iter().map(|measured| measured.test.work);
    (
        tests().find_map(|work| if let Work::Prompt(tokens) = work { Some(tokens) } else { None }),
        tests().find_map(|work| if let Work::Text { tokens, .. } = work { Some(tokens) } else { None }),
    )
}

fn panels(report: &Report) -> [Panel; 3] {
    let sequences = |test: &Test| match test.work {
        Work::Text { sequences, .. } => sequences,
        Work::Prompt(_) | Work::Vectors { .. } => 1,
    };
    let tests = || report.tests.iter().map(|measured| measured.test);
    let (mut threads, mut depths, mut batches): (Vec<_>, Vec<_>, Vec<_>) = (
        tests().map(|test| test.threads).collect(),
        tests().map(|test| test.depth).collect(),
        tests().filter(|test| matches!(test.work, Work::Text { .. })).map(|test| sequences(&test)).collect(),
    );
    for values in [&mut threads, &mut depths, &mut batches] {
        values.sort_unstable();
        values.dedup();
    }
    // What stays: the most threads, the least depth, the smallest batch.
    let (most, shallow) = (*threads.last().unwrap_or(&1), *depths.first().unwrap_or(&0));
    let least = *batches.first().unwrap_or(&1);
    let (prompt, text) = chosen(report);
    let at = |threads, depth, batch| {
        let test = move |work| Test { work, depth, threads };
        (
            prompt.map(|tokens| test(Work::Prompt(tokens))),
            text.map(|tokens| test(Work::Text { tokens, sequences: batch })),
        )
    };
    let panel = |title,
                 fixed,
                 values: &[usize],
                 prompts: bool,
                 at: &dyn Fn(usize) -> (Option<Test>, Option<Test>)| {
        let works: Vec<_> = values.iter().map(|&value| at(value)).collect();
        let mut lines = Vec::new();
        if prompts {
            lines.extend(drawn(report, "prompt", works.iter().map(|works| works.0)));
        }
        lines.extend(drawn(report, "text", works.iter().map(|works| works.1)));
        lines.retain(|line| line.points.iter().any(Option::is_some));
        Panel { title, fixed, values: values.to_vec(), lines }
    };
    let texts = if least == 1 { String::new() } else { format!(", {least} texts at once") };
    let of = if most == 1 { "1 thread".to_owned() } else { format!("{most} threads") };
    [
        panel("threads", format!("depth {shallow}{texts}"), &threads, true, &|n| at(n, shallow, least)),
        panel("depth (tokens before)", format!("{of}{texts}"), &depths, true, &|n| at(most, n, least)),
        panel("batch (texts at once)", format!("{of}, depth {shallow}, summed"), &batches, false, &|n| {
            at(most, shallow, n)
        }),
    ]
}

/// Our speeds at some tests, the ceilings over them, and those of every rival.
fn drawn(report: &Report, class: &'static str, tests: impl Iterator<Item = Option<Test>>) -> Vec<Line> {
    let tests: Vec<Option<Test>> = tests.collect();
    let rows: Vec<Option<Row>> = tests
        .iter()
        .map(|test| {
            let measured = report.tests.iter().find(|measured| Some(measured.test) == *test)?;
            Some(report.row(measured))
        })
        .collect();
    let points = |of: &dyn Fn(&Row) -> f64| rows.iter().map(|row| row.as_ref().map(of)).collect();
    let mut lines = vec![
        Line { class, mark: Mark::Ceiling, points: points(&|row| row.ceiling.median) },
        Line { class, mark: Mark::Ours, points: points(&|row| row.speed.median) },
    ];
    for rival in &report.rivals {
        let at = |test: &Option<Test>| {
            let theirs =
                rival.results.iter().find(|theirs| test.as_ref().is_some_and(|test| theirs.is(test)))?;
            Some(Spread::of(theirs.speeds.iter().copied()).median)
        };
        lines.push(Line { class, mark: Mark::Other, points: tests.iter().map(at).collect() });
    }
    lines
}

fn draw(panel: &Panel, left: f64, out: &mut Svg) {
    let (width, height) = PANEL;
    let bottom = TOP + height;
    let highest =
        panel.lines.iter().flat_map(|line| line.points.iter().flatten()).fold(0.0, |a, &b| f64::max(a, b));
    let (top, step) = scale(highest);
    let y = |value: f64| bottom - value / top * height;
    // Values stand at equal distances, whatever they are.
    let x = |nth: usize| left + width * (nth as f64 + 0.5) / panel.values.len().max(1) as f64;

    let mut tick = 0.0;
    while tick <= top * 1.0001 {
        let at = y(tick);
        let class = if tick == 0.0 { "class=\"axis\"" } else { "class=\"grid\"" };
        out.path(format_args!("M{left:.1} {at:.1}h{width:.1}"), class);
        out.text([left - 6.0, at + 4.0], "class=\"small\" text-anchor=\"end\"", &number(tick));
        tick += step;
    }
    out.text([left, TOP - 14.0], SMALL, &format!("tokens/s; {}", panel.fixed));
    out.text([left + width / 2.0, bottom + 40.0], "text-anchor=\"middle\"", panel.title);
    let mut end = 0.0;
    for (nth, value) in panel.values.iter().enumerate() {
        let (text, at) = (value.to_string(), x(nth));
        // Of values that stand close, some go without their number.
        let half = text_width(&text) / 2.0;
        if at - half < end {
            continue;
        }
        end = at + half + CHARACTER;
        out.text([at, bottom + 18.0], SMALL_MIDDLE, &text);
    }
    // The numbers of the next panel's axis begin APART - 50 to the right.
    let mut labels = Labels::within(Area(left, TOP - 12.0, left + APART - 50.0, bottom));
    let place = |line: &Line| -> Vec<(f64, f64)> {
        (0..).zip(&line.points).filter_map(|(nth, value)| Some((x(nth), y((*value)?)))).collect()
    };
    for line in panel.lines.iter().filter(|line| line.mark != Mark::Ceiling) {
        place(line).into_iter().for_each(|point| labels.point(point));
    }
    let mut figures = Vec::new();
    for line in &panel.lines {
        let points = place(line);
        let class = line.class;
        let kind = match line.mark {
            Mark::Ceiling => " ceiling",
            Mark::Ours => "",
            Mark::Other => " other",
        };
        let style = format!("class=\"{class}{kind}\"");
        if points.len() > 1 {
            let curve = format!("class=\"curve {class}{kind}\"");
            out.curve(points.iter().map(|&(x, y)| [x, y]), &curve);
        }
        for (&(x, y), value) in points.iter().zip(line.points.iter().flatten()) {
            match line.mark {
                // A ceiling over a single point is a stroke of its own.
                Mark::Ceiling => out.path(format_args!("M{:.1} {y:.1}h32", x - 16.0), &style),
                Mark::Other => out.rect([x - 3.5, y - 3.5], [7.0, 7.0], &style),
                Mark::Ours => {
                    out.circle([x, y], 3.5, &style);
                    let text = speed(*value);
                    let at = labels.place((x, y), &text);
                    figures
                        .extend(at.map(|(x, y)| ([x, y], format!("class=\"small figure {class}\""), text)));
                }
            }
        }
    }
    // On top of all lines, in the colour of their own, with a rim in that of the paper.
    figures.iter().for_each(|(at, style, text)| out.text(*at, style, text));
}

/// The end of an axis that holds `highest`, and the distance of its lines: 1, 2 or 5 times a power of ten.
fn scale(highest: f64) -> (f64, f64) {
    let highest = if highest > 0.0 && highest.is_finite() { highest } else { 1.0 };
    let rough = highest / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|&step| step >= rough).unwrap_or(rough);
    ((highest / step).ceil() * step, step)
}

/// Without a fraction that says nothing.
fn number(x: f64) -> String {
    let rounded = (x * 1e6).round() / 1e6;
    rounded.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number_that_holds_everything() {
        for (highest, axis) in
            [(38.7, (40.0, 10.0)), (157.0, (200.0, 50.0)), (0.3, (0.3, 0.1)), (1000.0, (1000.0, 500.0))]
        {
            let (top, step) = scale(highest);
            assert!((top - axis.0).abs() < 1e-9 && (step - axis.1).abs() < 1e-9, "{highest}: {top}, {step}");
            assert!(top >= highest);
        }
        assert_eq!(scale(0.0), scale(1.0));
        assert_eq!(number(0.1 + 0.2), "0.3");
    }

    /// Where every text of a picture stands, with what it says.
    fn texts(svg: &str) -> Vec<(Area, String)> {
        let number = |tag: &str, name: &str| -> f64 {
            let rest = tag.split(&format!(" {name}=\"")).nth(1).expect(name);
            rest.split('"').next().unwrap().parse().unwrap()
        };
        svg.split("<text ")
            .skip(1)
            .map(|piece| {
                let (tag, rest) = piece.split_once('>').unwrap();
                let text = rest.split('<').next().unwrap().to_owned();
                let tag = format!(" {tag}");
                let wide = text_width(&text);
                let shift = match () {
                    () if tag.contains("anchor=\"middle\"") => wide / 2.0,
                    () if tag.contains("anchor=\"end\"") => wide,
                    () => 0.0,
                };
                (Area::label(number(&tag, "x") - shift, number(&tag, "y"), &text), text)
            })
            .collect()
    }

    #[test]
    fn no_label_lies_on_another_however_crowded_it_is() {
        let line = |class, mark, points: &[f64]| Line {
            class,
            mark,
            points: points.iter().map(|x| Some(*x)).collect(),
        };
        for (count, near) in [(1, 1.0), (2, 1.0), (4, 1.01), (9, 1.001), (16, 1.1), (40, 1.0)] {
            let some: Vec<f64> = (0..count).map(|nth| 1000.0 + f64::from(nth % 3)).collect();
            let close: Vec<f64> = some.iter().map(|x| x * near).collect();
            let low: Vec<f64> = some.iter().map(|x| x / 1e6).collect();
            let panel = Panel {
                title: "depth (tokens before)",
                fixed: "16 threads, 128 texts at once".to_owned(),
                values: (0..count).map(|nth| 1_000_000 + nth as usize).collect(),
                lines: vec![
                    line("prompt", Mark::Ceiling, &some),
                    line("prompt", Mark::Ours, &some),
                    line("text", Mark::Ours, &close),
                    line("text", Mark::Other, &close),
                    line("text", Mark::Ours, &low),
                ],
            };
            let mut svg = Svg::new([WIDTH, HEIGHT], "");
            (0..3).for_each(|nth| draw(&panel, FIRST_LEFT + APART * f64::from(nth), &mut svg));
            let svg = svg.finish();
            let texts = texts(&svg);
            assert!(svg.matches("figure").count() >= 3, "some figures are there: {svg}");
            for (nth, (area, text)) in texts.iter().enumerate() {
                for (other, words) in &texts[..nth] {
                    assert!(!area.overlaps(*other), "{count}: `{text}` on `{words}`");
                }
            }
        }
    }
}
