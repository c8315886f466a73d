//! Writes GGUF files that need not be right. Knows the format on its own, so that a mistake in the reader is not
//! repeated here.

/// A GGUF under construction.
pub(crate) struct Gguf {
    pub(crate) version: u32,
    /// What the header says, where not the truth.
    pub(crate) pair_count: Option<u64>,
    pub(crate) tensor_count: Option<u64>,
    pub(crate) pairs: Vec<Vec<u8>>,
    pub(crate) tensors: Vec<(Vec<u8>, Vec<u8>)>,
    /// What the tensors are laid out to.
    pub(crate) alignment: usize,
    /// Where the tensors claim to be; the truth where it ends.
    pub(crate) offsets: Vec<u64>,
    /// Zero bytes after everything.
    pub(crate) tail: usize,
}

impl Default for Gguf {
    fn default() -> Self {
        let (pairs, tensors, offsets) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            version: 3,
            pair_count: None,
            tensor_count: None,
            pairs,
            tensors,
            alignment: 32,
            offsets,
            tail: 0,
        }
    }
}

/// A string with its length.
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

impl Gguf {
    /// A value of any type from its bytes.
    pub(crate) fn value(&mut self, key: &str, kind: u32, bytes: &[u8]) -> &mut Self {
        self.pairs.push([&string(key.as_bytes())[..], &kind.to_le_bytes(), bytes].concat());
        self
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        if key == "general.alignment" {
            self.alignment = value as usize;
        }
        self.value(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.value(key, 8, &string(value.as_bytes()))
    }

    pub(crate) fn array(&mut self, key: &str, kind: u32, count: u64, bytes: &[u8]) -> &mut Self {
        self.value(key, 9, &[&kind.to_le_bytes()[..], &count.to_le_bytes(), bytes].concat())
    }

    pub(crate) fn strings(&mut self, key: &str, strings: &[impl AsRef<str>]) -> &mut Self {
        let bytes: Vec<u8> = strings.iter().flat_map(|text| string(text.as_ref().as_bytes())).collect();
        self.array(key, 8, strings.len() as u64, &bytes)
    }

    /// A tensor with its sizes innermost first.
    pub(crate) fn tensor(&mut self, name: &str, dims: &[u64], type_id: u32, data: Vec<u8>) -> &mut Self {
        let mut info = string(name.as_bytes());
        info.extend((dims.len() as u32).to_le_bytes());
        info.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        info.extend(type_id.to_le_bytes());
        self.tensors.push((info, data));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.pair_count.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        out.extend(self.pairs.iter().flatten());
        let mut data = Vec::new();
        for (nth, (info, bytes)) in self.tensors.iter().enumerate() {
            data.resize(usize::next_multiple_of(data.len(), self.alignment), 0);
            out.extend(info);
            out.extend(self.offsets.get(nth).copied().unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(bytes);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(data);
        out.resize(out.len() + self.tail, 0);
        out
    }
}
