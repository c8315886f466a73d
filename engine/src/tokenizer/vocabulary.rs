//! Pieces and their ids, both ways, in one arena: 128 000 pieces load in a few milliseconds.

use std::hash::{BuildHasher, RandomState};

/// Ids above this belong to no vocabulary; it bounds what a hostile id can make Tern allocate.
pub const MAX_IDS: usize = 1 << 22;

const FREE: u32 = u32::MAX;

/// Byte strings by id, and ids by byte string. Ids may have holes.
pub(crate) struct Vocabulary {
    /// All pieces, one after another.
    bytes: Vec<u8>,
    /// Start and end in `bytes`, by id; a hole is empty.
    spans: Vec<(u32, u32)>,
    /// Open addressing over ids; a power of two, at most half full.
    slots: Vec<u32>,
    /// How many slots are taken.
    taken: usize,
    hasher: RandomState,
}

impl Vocabulary {
    /// Empty, with room for this many pieces, of which there are no more than the file has bytes.
    pub(crate) fn with_capacity(pieces: usize) -> Self {
        let slots = (pieces * 2).next_power_of_two().max(64);
        Self {
            bytes: Vec::with_capacity(pieces * 6),
            spans: Vec::with_capacity(pieces),
            slots: vec![FREE; slots],
            taken: 0,
            hasher: RandomState::new(),
        }
    }

    /// Gives `id` to this piece and lets [`find`](Self::find) see it; of two equal pieces the later is found.
    pub(crate) fn insert(&mut self, id: u32, piece: &[u8]) -> Result<(), String> {
        self.name(id, piece)?;
        if piece.is_empty() {
            return Ok(());
        }
        if self.taken * 2 >= self.slots.len() {
            self.grow();
        }
        let slot = self.slot(piece);
        if self.slots[slot] == FREE {
            self.taken += 1;
        }
        self.slots[slot] = id;
        Ok(())
    }

    /// Gives `id` to this piece, but only for printing: text never becomes it.
    pub(crate) fn name(&mut self, id: u32, piece: &[u8]) -> Result<(), String> {
        let at = id as usize;
        if at >= MAX_IDS {
            return Err(format!("token id {id} is above the limit of {MAX_IDS}"));
        }
        if at >= self.spans.len() {
            self.spans.resize(at + 1, (0, 0));
        }
        if let Some(old) = self.piece(id) {
            let old = crate::error::quoted(&String::from_utf8_lossy(old));
            let new = crate::error::quoted(&String::from_utf8_lossy(piece));
            return Err(format!("token id {id} belongs to `{old}` and to `{new}`"));
        }
        let start = self.bytes.len();
        let end = start.checked_add(piece.len()).and_then(|end| u32::try_from(end).ok());
        let end = end.ok_or("the vocabulary is larger than 4 GiB")?;
        self.bytes.extend_from_slice(piece);
        self.spans[at] = (start as u32, end);
        Ok(())
    }

    /// The bytes of this id; none for a hole.
    pub(crate) fn piece(&self, id: u32) -> Option<&[u8]> {
        let &(start, end) = self.spans.get(id as usize)?;
        (start < end).then(|| &self.bytes[start as usize..end as usize])
    }

    /// The id of exactly these bytes.
    pub(crate) fn find(&self, piece: &[u8]) -> Option<u32> {
        let id = self.slots[self.slot(piece)];
        (id != FREE).then_some(id)
    }

    /// One more than the largest id.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The slot that holds this piece, or the free one where it belongs.
    fn slot(&self, piece: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(piece) as usize & mask;
        while self.slots[slot] != FREE && self.piece(self.slots[slot]) != Some(piece) {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let wider = vec![FREE; self.slots.len() * 4];
        for id in std::mem::replace(&mut self.slots, wider) {
            if let Some(piece) = self.piece(id) {
                let slot = self.slot(piece);
                self.slots[slot] = id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_found_by_id_and_by_bytes() {
        let mut v = Vocabulary::with_capacity(0);
        for id in 0..1000u32 {
            v.insert(id * 2, format!("p{id}").as_bytes()).unwrap();
        }
        assert_eq!(v.len(), 1999);
        for id in 0..1000u32 {
            assert_eq!(v.find(format!("p{id}").as_bytes()), Some(id * 2));
            assert_eq!(v.piece(id * 2), Some(format!("p{id}").as_bytes()));
            assert_eq!(v.piece(id * 2 + 1), None);
        }
        assert_eq!(v.find(b"p1000"), None);
        assert_eq!(v.find(b""), None);
    }

    #[test]
    fn an_id_is_given_once_and_a_huge_one_never() {
        let mut v = Vocabulary::with_capacity(0);
        v.insert(3, b"a").unwrap();
        assert!(v.insert(3, b"b").unwrap_err().contains("belongs to `a` and to `b`"));
        assert!(v.insert(u32::MAX, b"c").unwrap_err().contains("above the limit"));
        v.name(4, b"hidden").unwrap();
        assert_eq!((v.find(b"hidden"), v.piece(4)), (None, Some(&b"hidden"[..])));
    }
}
