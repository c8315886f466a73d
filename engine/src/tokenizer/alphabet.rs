//! GPT-2's printable alphabet: one character for every byte, so that pieces can be written as text.

/// The bytes that stand for themselves; the other 68 are 256, 257, ... in their order.
fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, 33..=126 | 161..=172 | 174..=255)
}

const TO_CHAR: [char; 256] = to_char();

const fn to_char() -> [char; 256] {
    let mut table = ['\0'; 256];
    let (mut byte, mut next) = (0, 256u32);
    while byte < 256 {
        table[byte] = if matches!(byte, 33..=126 | 161..=172 | 174..=255) {
            byte as u8 as char
        } else {
            next += 1;
            match char::from_u32(next - 1) {
                Some(char) => char,
                None => unreachable!(),
            }
        };
        byte += 1;
    }
    table
}

/// The bytes that a printed piece stands for; `None` if a character is not in the alphabet.
pub(crate) fn bytes(piece: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(piece.len());
    append(piece, &mut bytes).then_some(bytes)
}

/// Adds the bytes that a printed piece stands for, or the piece as it is if a character is not in the alphabet;
/// whether all were.
pub(crate) fn append(piece: &str, bytes: &mut Vec<u8>) -> bool {
    let start = bytes.len();
    for char in piece.chars() {
        let Some(byte) = byte(char) else {
            bytes.truncate(start);
            bytes.extend_from_slice(piece.as_bytes());
            return false;
        };
        bytes.push(byte);
    }
    true
}

fn byte(char: char) -> Option<u8> {
    if let Ok(byte) = u8::try_from(char as u32) {
        return stands_for_itself(byte).then_some(byte);
    }
    // 256.. are bytes 0..=32, 127..=160 and 173.
    match char as u32 - 256 {
        at @ 0..=32 => Some(at as u8),
        at @ 33..=66 => Some((at - 33 + 127) as u8),
        67 => Some(173),
        _ => None,
    }
}

/// A piece as it is printed.
pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| TO_CHAR[byte as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        let all: Vec<u8> = (0..=255).collect();
        let printed = text(&all);
        assert_eq!(bytes(&printed), Some(all));
        assert_eq!(text(b" the\n"), "ĠtheĊ");
        assert_eq!(bytes("a b"), None);
        assert_eq!(bytes("▁a"), None);
    }
}
