//! Logits of which a few are changed. The others are read where they lie: nobody copies a vocabulary for a penalty.

use super::filters::Candidate;

/// What was changed, kept from one choice to the next for its memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// By id: one more than the place in `new`; 0 for an unchanged one.
    places: Vec<u32>,
    new: Vec<(u32, f32)>,
}

/// Logits as they are after changes.
pub(super) struct Changed<'a> {
    logits: &'a [f32],
    changes: &'a mut Changes,
}

impl<'a> Changed<'a> {
    /// Nothing is changed yet.
    pub(super) fn new(logits: &'a [f32], changes: &'a mut Changes) -> Self {
        for (id, _) in changes.new.drain(..) {
            changes.places[id as usize] = 0;
        }
        Self { logits, changes }
    }

    /// The size of the vocabulary.
    pub(super) fn len(&self) -> usize {
        self.logits.len()
    }

    /// The logit of a token, to be changed.
    pub(super) fn at(&mut self, id: u32) -> &mut f32 {
        let Changes { places, new } = &mut *self.changes;
        if places.len() < self.logits.len() {
            places.resize(self.logits.len(), 0);
        }
        let place = &mut places[id as usize];
        if *place == 0 {
            new.push((id, self.logits[id as usize]));
            *place = new.len() as u32;
        }
        &mut new[*place as usize - 1].1
    }

    /// All logits, if none is changed.
    pub(super) fn untouched(&self) -> Option<&'a [f32]> {
        self.changes.new.is_empty().then_some(self.logits)
    }

    /// Every logit with its id, by rising id.
    pub(super) fn iter(&self) -> impl Iterator<Item = Candidate> {
        let Changes { places, new } = &*self.changes;
        // Without changes there may be no places at all.
        let places = if new.is_empty() { &[] } else { &places[..] };
        let new = |id: u32| Some(new[places.get(id as usize)?.checked_sub(1)? as usize].1);
        self.logits.iter().zip(0..).map(move |(&logit, id)| (new(id).unwrap_or(logit), id))
    }
}
