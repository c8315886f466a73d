//! Drawings as SVG: what the pages of training, evaluation and benchmarks are drawn with.

use std::fmt::{Display, Write};

/// A place, or a width and a height.
pub type Pair = [f64; 2];

/// A drawing, element by element. `style` is each element's other attributes, as they are written: `class="grid"`.
#[derive(Debug)]
pub struct Svg(String);

impl Svg {
    /// Begins a drawing of this size.
    pub fn new([width, height]: Pair, style: &str) -> Self {
        Self(format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" {style}>\n"))
    }

    /// Adds what is written already.
    pub fn raw(&mut self, what: impl Display) {
        let _ = writeln!(self.0, "{what}");
    }

    /// Words that begin at this place, or end or have their middle there, as the style says.
    pub fn text(&mut self, [x, y]: Pair, style: &str, words: &str) {
        let words = escaped(words).replace(char::is_control, " ");
        self.raw(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>"));
    }

    /// A rectangle, by its upper left corner and its size.
    pub fn rect(&mut self, [x, y]: Pair, [width, height]: Pair, style: &str) {
        self.raw(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" {style}/>"
        ));
    }

    /// A circle around this place.
    pub fn circle(&mut self, [x, y]: Pair, radius: f64, style: &str) {
        self.raw(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" {style}/>"));
    }

    /// A path in SVG's own words, whose capital letters go to a place and whose small ones go on by so much.
    pub fn path(&mut self, way: impl Display, style: &str) {
        self.raw(format_args!("<path d=\"{way}\" {style}/>"));
    }

    /// A line from place to place.
    pub fn curve(&mut self, places: impl Iterator<Item = Pair>, style: &str) {
        let places: Vec<String> = places.map(|[x, y]| format!("{x:.1} {y:.1}")).collect();
        self.path(format_args!("M{}", places.join("L")), style);
    }

    /// The whole drawing.
    pub fn finish(self) -> String {
        self.0 + "</svg>\n"
    }
}

/// A text for a page: what would be a tag or end an attribute stays text.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_any_kind_stays_text_on_one_line() {
        let mut svg = Svg::new([2.0, 1.5], "");
        svg.text([1.0, 0.25], "class=\"a\"", "<a href=\"x\">&\n");
        let text = "<text x=\"1.0\" y=\"0.2\" class=\"a\">&lt;a href=&quot;x&quot;&gt;&amp; </text>";
        assert_eq!(svg.finish(), format!("<svg viewBox=\"0 0 2 1.5\" role=\"img\" >\n{text}\n</svg>\n"));
    }
}
