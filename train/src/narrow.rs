//! A narrower model of a wide one: of each layer the feed-forward units and the groups of heads (a key and value head with the
//! query heads that read it) whose weights are the largest. Those that stay keep their order.

use std::ops::Range;

use tern::Config;

use crate::params::{Layout, Slice};

/// What stays of a layer, as indices into its widths.
struct Kept {
    /// Of queries, `(heads × head_dim)`.
    q: Vec<usize>,
    /// Of keys and values.
    kv: Vec<usize>,
    /// Of the feed-forward layer.
    hidden: Vec<usize>,
}

/// The `count` largest of these, in their order; of equals the first.
fn largest(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// The root of the sum of squares of some rows, or columns, of a matrix with rows of `cols` weights.
fn rows(w: &[f32], cols: usize, which: Range<usize>) -> f64 {
    let part = &w[which.start * cols..which.end * cols];
    part.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt()
}

fn columns(w: &[f32], cols: usize, which: Range<usize>) -> f64 {
    let each = w.chunks_exact(cols).flat_map(|row| &row[which.clone()]);
    each.map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt()
}

/// What of a layer of the wide model stays in the narrow one.
fn kept(from: &Layout, values: &[f32], layer: usize, wide: &Config, narrow: &Config) -> Kept {
    let block = &from.blocks[layer];
    let at = |range: &Range<usize>| &values[range.clone()];
    let Config { dim, hidden, head_dim, heads, kv_heads, .. } = *wide;
    let group = heads / kv_heads;
    // What a head can write to the stream goes through `v` and `o`; what a unit can, through all three.
    let head = |nth: usize| {
        let of_v = rows(at(&block.v), dim, nth * head_dim..(nth + 1) * head_dim);
        let width = group * head_dim;
        of_v * columns(at(&block.o), wide.q_dim(), nth * width..(nth + 1) * width)
    };
    let unit = |nth: usize| {
        let one = nth..nth + 1;
        let inner = rows(at(&block.gate), dim, one.clone()) * rows(at(&block.up), dim, one.clone());
        inner * columns(at(&block.down), hidden, one)
    };
    let groups = largest(&(0..kv_heads).map(head).collect::<Vec<_>>(), narrow.kv_heads);
    let spread = |width: usize| groups.iter().flat_map(|nth| nth * width..(nth + 1) * width).collect();
    Kept {
        q: spread(group * head_dim),
        kv: spread(head_dim),
        hidden: largest(&(0..hidden).map(unit).collect::<Vec<_>>(), narrow.hidden),
    }
}

impl Kept {
    /// Which outputs and which inputs of a slice stay, where not all of them do.
    fn of(&self, slice: &Slice) -> [Option<&[usize]>; 2] {
        let module = slice.name.splitn(3, '.').nth(2).and_then(|rest| rest.split('.').next());
        let outputs = match module {
            Some("attn_q") => &self.q,
            Some("attn_k" | "attn_v") => &self.kv,
            Some("ffn_gate" | "ffn_up") => &self.hidden,
            Some("attn_output" | "attn_sub_norm") => return [None, Some(&self.q)],
            Some("ffn_down" | "ffn_sub_norm") => return [None, Some(&self.hidden)],
            _ => return [None, None],
        };
        // A bias is a row by itself.
        if slice.rows == 1 { [None, Some(outputs)] } else { [Some(outputs), None] }
    }
}

/// A student as wide as the model that it begins as.
pub(crate) fn as_wide_as(student: &Config, of: &Config) -> Config {
    let Config { heads, kv_heads, hidden, .. } = *of;
    Config { heads, kv_heads, hidden, ..student.clone() }
}

/// The numbers of the narrow model, `to`, whose layers are those of the wide one, `from`.
pub(crate) fn take(from: &Layout, values: &[f32], wide: &Config, to: &Layout, narrow: &Config) -> Vec<f32> {
    let layers: Vec<Kept> = (0..wide.layers).map(|layer| kept(from, values, layer, wide, narrow)).collect();
    let mut out = vec![0f32; to.len];
    for (old, new) in from.slices.iter().zip(&to.slices) {
        let (old_values, new_values) = (&values[old.range.clone()], &mut out[new.range.clone()]);
        let layer = old.name.split('.').nth(1).and_then(|layer| layer.parse::<usize>().ok());
        let [outputs, inputs] = layer.map_or([None, None], |layer| layers[layer].of(old));
        for (nth, row) in new_values.chunks_exact_mut(new.cols).enumerate() {
            let theirs = &old_values[outputs.map_or(nth, |rows| rows[nth]) * old.cols..][..old.cols];
            match inputs {
                Some(columns) => row.iter_mut().zip(columns).for_each(|(out, at)| *out = theirs[*at]),
                None => row.copy_from_slice(theirs),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_stay_in_their_order_and_of_equals_the_first() {
        assert_eq!(largest(&[1.0, 5.0, 3.0, 5.0], 3), [1, 2, 3]);
        assert_eq!(largest(&[2.0, 2.0, 2.0], 2), [0, 1]);
        assert_eq!(largest(&[0.0, f64::NAN, 1.0], 1), [1]);
    }
}
