//! NumPy's file format, version 1.0: a header that says what the bytes after it are.

/// One row of bytes for each vector. Floats are `<f4`, 8 bits are `|i1`, fewer are bytes that hold several numbers.
pub(super) fn write(out: &mut Vec<u8>, bits: u32, rows: &[Vec<u8>]) {
    let (kind, size) = match bits {
        32 => ("<f4", 4),
        8 => ("|i1", 1),
        _ => ("|u1", 1),
    };
    let columns = rows.first().map_or(0, |row| row.len() / size);
    let mut header =
        format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({}, {columns}), }}", rows.len());
    // Magic, version and length are 10 bytes; all of it is filled up to a multiple of 64, a line end last.
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    out.extend(b"\x93NUMPY\x01\x00");
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    rows.iter().for_each(|row| out.extend(row));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_header_fills_whole_lines_of_64_bytes() {
        let mut out = Vec::new();
        super::write(&mut out, 32, &[vec![0; 12], vec![1; 12]]);
        assert_eq!(out.len(), 128 + 24);
        let header = std::str::from_utf8(&out[10..128]).unwrap();
        assert!(
            header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"),
            "{header}"
        );
        assert!(header.ends_with(" \n"));
        assert_eq!(out[8..10], 118u16.to_le_bytes());
    }
}
