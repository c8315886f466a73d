//! Bars with whiskers and grids of shares, as SVG that takes its colours from the page.

use tern_train::svg::Svg;

/// Bars of one label, side by side.
pub(super) struct Group {
    pub(super) label: String,
    pub(super) bars: Vec<Bar>,
}

/// One bar; `colour` counts through the models.
#[derive(Clone, Copy)]
pub(super) struct Bar {
    pub(super) colour: usize,
    pub(super) value: f64,
    /// Where its whisker begins and ends.
    pub(super) from: f64,
    pub(super) to: f64,
}

/// Told apart by eyes that see fewer colours too (after Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];

const WIDTH: f64 = 440.0;
/// For the number behind the longest bar.
const RIGHT: f64 = 60.0;
const BAR: f64 = 14.0;
const GAP: f64 = 12.0;

/// Lying bars, groups below each other; the axis ends at `most` or above the longest.
pub(super) fn bars(groups: &[Group], models: &[String], most: Option<f64>, unit: &str) -> String {
    let longest =
        groups.iter().flat_map(|group| &group.bars).map(|bar| bar.value.max(bar.to)).fold(0.0, f64::max);
    let most = most.unwrap_or_else(|| round_up(longest));
    let left = margin(groups.iter().map(|group| group.label.as_str()));
    let at = |value: f64| left + WIDTH * (value / most).clamp(0.0, 1.0);
    let legend = if models.len() > 1 { 24.0 } else { 0.0 };
    let bars: usize = groups.iter().map(|group| group.bars.len()).sum();
    let bottom = legend + bars as f64 * BAR + groups.len() as f64 * GAP + 4.0;
    let whole = left + WIDTH + RIGHT;
    let mut svg = Svg::new([whole, bottom + 22.0], &format!("width=\"{whole}\""));
    let mut x = left;
    for (nth, model) in models.iter().enumerate().filter(|_| legend > 0.0) {
        svg.rect([x, 2.0], [10.0, 10.0], &fill(nth));
        svg.text([x + 14.0, 11.0], "", model);
        x += 34.0 + 7.0 * model.chars().count() as f64;
    }
    for step in 0..=4 {
        let value = most * f64::from(step) / 4.0;
        let x = at(value);
        svg.path(format_args!("M{x:.1} {legend}V{bottom}"), "class=\"axis\"");
        let words = format!("{}{unit}", short(value));
        svg.text([x, bottom + 16.0], "class=\"dim\" text-anchor=\"middle\"", &words);
    }
    let mut y = legend + GAP / 2.0;
    for group in groups {
        let middle = y + group.bars.len() as f64 * BAR / 2.0;
        svg.text([left - 8.0, middle + 4.0], "text-anchor=\"end\"", &group.label);
        for bar in &group.bars {
            let (end, middle) = (at(bar.value), y + BAR / 2.0);
            svg.rect([left, y + 1.5], [end - left, BAR - 3.0], &fill(bar.colour));
            let (low, high) = (at(bar.from), at(bar.to));
            if high > low {
                let ends = middle - 3.0;
                svg.path(
                    format_args!(
                        "M{low:.1} {middle:.1}H{high:.1}M{low:.1} {ends:.1}v6M{high:.1} {ends:.1}v6"
                    ),
                    "class=\"error\" fill=\"none\"",
                );
            }
            let words = format!("{}{unit}", short(bar.value));
            svg.text([high.max(end) + 6.0, middle + 4.0], "", &words);
            y += BAR;
        }
        y += GAP;
    }
    svg.finish()
}

fn fill(colour: usize) -> String {
    format!("fill=\"{}\"", COLOURS[colour % COLOURS.len()])
}

/// Shares by length (across) and depth (down), the fuller the darker; each cell is `[length, depth, share]`.
pub(super) fn grid(cells: &[[f64; 3]]) -> String {
    const CELL: [f64; 2] = [64.0, 26.0];
    let values = |at: usize| {
        let mut values: Vec<f64> = cells.iter().map(|cell| cell[at]).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        values
    };
    let (lengths, depths) = (values(0), values(1));
    let labels: Vec<String> = depths.iter().map(|depth| format!("depth {depth}%")).collect();
    let left = margin(labels.iter().map(String::as_str));
    let (width, height) = (left + lengths.len() as f64 * CELL[0], depths.len() as f64 * CELL[1] + 22.0);
    // As wide as the bars, so that both have the same type.
    let whole = width.max(left + WIDTH + RIGHT);
    let mut svg = Svg::new([whole, height], &format!("width=\"{whole}\""));
    for (row, label) in labels.iter().enumerate() {
        svg.text([left - 8.0, row as f64 * CELL[1] + 17.0], "text-anchor=\"end\"", label);
    }
    for (column, length) in lengths.iter().enumerate() {
        let place = [left + (column as f64 + 0.5) * CELL[0], height - 6.0];
        svg.text(place, "class=\"dim\" text-anchor=\"middle\"", &length.to_string());
    }
    let place = |values: &[f64], value: f64| values.iter().position(|v| *v == value).unwrap_or(0) as f64;
    for &[length, depth, share] in cells {
        let (x, y) = (left + place(&lengths, length) * CELL[0], place(&depths, depth) * CELL[1]);
        let style = format!("{} fill-opacity=\"{:.2}\"", fill(0), 0.06 + 0.6 * share);
        svg.rect([x, y], [CELL[0] - 2.0, CELL[1] - 2.0], &style);
        let words = format!("{:.0}%", 100.0 * share);
        svg.text([x + CELL[0] / 2.0 - 1.0, y + 17.0], "text-anchor=\"middle\"", &words);
    }
    svg.finish()
}

/// Room for the longest label at 12 px.
fn margin<'a>(labels: impl Iterator<Item = &'a str>) -> f64 {
    labels.map(|label| label.chars().count()).max().unwrap_or(0) as f64 * 6.8 + 14.0
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The next number above that a scale may end at.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 8.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|end| *end >= value)
        .unwrap_or(10.0 * power)
}
