//! The results as a terminal of 80 columns shows them: what matters, in columns that line up.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

use super::report::{Report, mib, percent, speed};
use super::test::Spread;
use crate::cmd::inspect::short;
use crate::terminal;

/// What every terminal has.
const COLUMNS: usize = 80;

/// The report without what only a record needs.
pub(super) fn text(report: &Report) -> String {
    let mut head = format!("{}\n{}\n", report.model, report.machine_line());
    if let Some(note) = &report.note {
        let _ = writeln!(head, "{note}");
    }
    let start = &report.start;
    let _ = writeln!(
        head,
        "{} ternary weights; loaded in {:.3} s, first token after {:.3} s; peak {}\n",
        short(report.weights.into()),
        start.load.as_secs_f64(),
        start.first_token.as_secs_f64(),
        mib(report.peak),
    );
    let mut text = terminal::wrapped(&head, COLUMNS);
    let mut rows =
        vec![["test", "threads", "tokens/s", "from – to", "of ceiling", "GB/s"].map(str::to_owned)];
    for measured in &report.tests {
        let row = report.row(measured);
        rows.push([
            measured.test.to_string(),
            measured.test.threads.to_string(),
            speed(row.speed.median),
            range(row.speed),
            format!("{} {}", percent(row.of_ceiling.median), row.limit),
            format!("{:.1}", row.speed.median * row.bytes / 1e9),
        ]);
    }
    columns(&rows, &mut text);
    for line in [report.texts_line(), report.units_line()].into_iter().flatten() {
        text.push_str(&terminal::wrapped(&format!("\n{line}\n"), COLUMNS));
    }
    if let Some(line) = report.active_line() {
        text.push_str(&terminal::wrapped(&format!("\n{line}\n"), COLUMNS));
    }
    for rival in &report.rivals {
        text.push_str(&terminal::wrapped(&format!("\nagainst {}\n\n", rival.command()), COLUMNS));
        let mut rows =
            vec![["test", "tern tokens/s", "theirs", "from – to", "ratio", "from – to"].map(str::to_owned)];
        for theirs in &rival.results {
            let found = Spread::of(theirs.speeds.iter().copied());
            let ours = report.ours(theirs).map(|ours| speed(ours.each(|round| round.speed).median));
            let ratio = report.ratio(theirs);
            let none = || "–".to_owned();
            rows.push([
                theirs.name.clone(),
                ours.unwrap_or_else(none),
                speed(found.median),
                range(found),
                ratio.map_or_else(none, |ratio| format!("{:.2}×", ratio.median)),
                ratio.map_or_else(none, |ratio| format!("{:.2} – {:.2}", ratio.least, ratio.most)),
            ]);
        }
        columns(&rows, &mut text);
    }
    if report.meter.is_ok() {
        let joules = report
            .tests
            .iter()
            .filter_map(|measured| Some(format!("{} {:.3}", measured.test, report.row(measured).joules?)));
        let joules = format!("\nJoules a token: {}\n", joules.collect::<Vec<_>>().join(", "));
        text.push_str(&terminal::wrapped(&joules, COLUMNS));
    }
    text.push_str("\nMedians. `-o md` shows all columns and the ceilings, `--json` every round.\n");
    text
}

fn range(of: Spread) -> String {
    format!("{} – {}", speed(of.least), speed(of.most))
}

/// The first column to the left, the others to the right, two spaces between.
fn columns<const N: usize>(rows: &[[String; N]], out: &mut String) {
    let widths: [usize; N] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].width()).max().unwrap_or(0));
    for row in rows {
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            let space = " ".repeat(width - cell.width());
            match at {
                0 => out.push_str(&format!("{cell}{space}")),
                _ => out.push_str(&format!("  {space}{cell}")),
            }
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
}
