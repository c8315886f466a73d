//! Runs of columns under one scale: where a product must leave its integers and go on in floats.

use std::ops::Range;

/// Columns `start..end` that share a scale of the weights and a step of the activations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Segment {
    start: usize,
    end: usize,
    /// Which group of the weights' columns.
    pub(crate) weights: usize,
    /// Which group of the activations.
    pub(crate) inputs: usize,
    cols: usize,
}

impl Segment {
    /// Its columns.
    pub(crate) fn columns(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Its quads of columns; the last segment of a row takes what fills up the last block, whose activations are zero.
    #[inline(always)]
    pub(crate) fn quads(&self, all: usize) -> Range<usize> {
        self.start / 4..if self.end == self.cols { all } else { self.end / 4 }
    }
}

/// The segments of a row, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segments {
    next: Segment,
    sizes: (usize, usize),
}

impl Segments {
    /// Of rows of `cols`, `weights` of which share a scale and `inputs` a step: multiples of 4, or no less than all.
    #[inline(always)]
    pub(crate) fn new(cols: usize, weights: usize, inputs: usize) -> Self {
        let next = Segment { start: 0, end: 0, weights: 0, inputs: 0, cols };
        Self { next, sizes: (weights.min(cols), inputs.min(cols)) }
    }
}

impl Iterator for Segments {
    type Item = Segment;

    #[inline(always)]
    fn next(&mut self) -> Option<Segment> {
        let (start, (weights, inputs)) = (self.next.end, self.sizes);
        if start == self.next.cols {
            return None;
        }
        if start > 0 {
            self.next.weights += usize::from(start == (self.next.weights + 1) * weights);
            self.next.inputs += usize::from(start == (self.next.inputs + 1) * inputs);
        }
        let border = ((self.next.weights + 1) * weights).min((self.next.inputs + 1) * inputs);
        (self.next.start, self.next.end) = (start, border.min(self.next.cols));
        Some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_end_at_every_border() {
        let all = |cols, weights, inputs| {
            Segments::new(cols, weights, inputs)
                .map(|s| (s.start, s.end, s.weights, s.inputs))
                .collect::<Vec<_>>()
        };
        assert_eq!(all(100, 1 << 18, 1 << 18), [(0, 100, 0, 0)]);
        assert_eq!(all(300, 128, 300), [(0, 128, 0, 0), (128, 256, 1, 0), (256, 300, 2, 0)]);
        assert_eq!(all(300, 256, 128), [(0, 128, 0, 0), (128, 256, 0, 1), (256, 300, 1, 2)]);
        assert_eq!(all(100, 40, 64), [(0, 40, 0, 0), (40, 64, 1, 0), (64, 80, 1, 1), (80, 100, 2, 1)]);
        let last = Segments::new(100, 64, 64).last().unwrap();
        assert_eq!((last.quads(28), last.columns()), (16..28, 64..100));
    }
}
