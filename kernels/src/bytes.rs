//! A shared read-only run of bytes: a memory map, or memory of our own.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Memory that a [`Bytes`] can be a part of.
pub trait Memory: AsRef<[u8]> + Send + Sync {
    /// Hints that this part will not be read soon: a memory map can return its pages to the system.
    fn release(&self, _part: Range<usize>) {}
    /// What became of the file behind it since it was opened, if that was seen: its bytes cannot be trusted any more.
    fn changed(&self) -> Option<String> {
        None
    }
}

impl Memory for Vec<u8> {}
impl Memory for &'static [u8] {}

/// The owner of the memory behind a [`Bytes`].
pub type Owner = Arc<dyn Memory>;

/// A shared, read-only slice of an [`Owner`]; cloning it copies no data.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    range: Range<usize>,
}

impl Bytes {
    /// The part `range` of `owner`; `None` when the range does not lie inside it.
    pub fn new(owner: Owner, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(Self { owner, range })
    }

    /// A part of these bytes, sharing the owner; `None` when it does not lie inside.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        self.get(range.clone())?;
        let start = self.range.start;
        Some(Self { owner: self.owner.clone(), range: start + range.start..start + range.end })
    }

    /// The owner that keeps these bytes alive.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Hints that these bytes will not be read soon. Reading them all the same is correct, only slower.
    pub fn release(&self) {
        self.owner.release(self.range.clone());
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Arc::new(bytes), range }
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}
