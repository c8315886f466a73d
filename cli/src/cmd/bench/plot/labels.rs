//! Where the figures beside the points stand: a place that no other label or point takes, or none at all.

/// The width of a small character, a little more than that of any digit in the fonts that browsers use here.
pub(super) const CHARACTER: f64 = 6.8;
/// How far a small label reaches above and below its base line.
const ABOVE: f64 = 9.0;
const BELOW: f64 = 3.0;

/// A rectangle: left, top, right, bottom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area(pub(super) f64, pub(super) f64, pub(super) f64, pub(super) f64);

impl Area {
    /// Of a small label that begins at `x`.
    pub(super) fn label(x: f64, y: f64, text: &str) -> Self {
        Self(x, y - ABOVE, x + text_width(text), y + BELOW)
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        self.0 < other.2 && other.0 < self.2 && self.1 < other.3 && other.1 < self.3
    }

    fn holds(self, other: Self) -> bool {
        self.0 <= other.0 && other.2 <= self.2 && self.1 <= other.1 && other.3 <= self.3
    }
}

pub(super) fn text_width(text: &str) -> f64 {
    CHARACTER * text.chars().count() as f64
}

/// As much of a text as has room, with a sign that it went on.
pub(super) fn clipped(text: &str, room: f64, character: f64) -> String {
    let most = (room / character) as usize;
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The labels of a panel.
pub(super) struct Labels {
    panel: Area,
    taken: Vec<Area>,
}

impl Labels {
    pub(super) fn within(panel: Area) -> Self {
        Self { panel, taken: Vec::new() }
    }

    /// A point of a line: no label may hide it.
    pub(super) fn point(&mut self, (x, y): (f64, f64)) {
        self.taken.push(Area(x - 4.0, y - 4.0, x + 4.0, y + 4.0));
    }

    /// Where the label of a point begins: below its line if there is room, otherwise somewhere around it.
    pub(super) fn place(&mut self, (px, py): (f64, f64), text: &str) -> Option<(f64, f64)> {
        let (right, left, middle) = (px + 7.0, px - 7.0 - text_width(text), px - text_width(text) / 2.0);
        let places = [
            (right, py + 13.0),
            (right, py - 7.0),
            (left, py + 13.0),
            (left, py - 7.0),
            (middle, py - 9.0),
            (middle, py + 16.0),
            (middle, py - 22.0),
            (middle, py + 29.0),
        ];
        let (x, y) = places.into_iter().find(|&(x, y)| {
            let area = Area::label(x, y, text);
            self.panel.holds(area) && !self.taken.iter().any(|other| area.overlaps(*other))
        })?;
        self.taken.push(Area::label(x, y, text));
        Some((x, y))
    }
}
