//! Rotary positions (RoFormer, Su et al. 2021): pairs of a head's elements turn by an angle that grows with the position.

/// Which elements of a head rotate together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairing {
    /// Element `j` with `j + head_dim / 2`: Hugging Face checkpoints and the `bitnet` GGUFs.
    #[default]
    Halves,
    /// Element `2j` with `2j + 1`: GGUFs of architecture `llama`, whose q and k rows were permuted to suit.
    Neighbours,
}

/// Rotates one head by its angles: cosines, then sines.
#[inline(always)]
pub(super) fn rotate(pairing: Pairing, angles: &[f32], head: &mut [f32]) {
    let (cosines, sines) = angles.split_at(head.len() / 2);
    match pairing {
        Pairing::Halves => {
            let (a, b) = head.split_at_mut(head.len() / 2);
            for (((a, b), cosine), sine) in a.iter_mut().zip(b).zip(cosines).zip(sines) {
                (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
            }
        }
        Pairing::Neighbours => {
            for (([a, b], cosine), sine) in head.as_chunks_mut::<2>().0.iter_mut().zip(cosines).zip(sines) {
                (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
            }
        }
    }
}
