//! Vectors in fewer bits. Each number becomes a small integer that is proportional to it, so that the cosine of two vectors
//! is that of their integers.
//!
//! ```text
//! 8   -127 to 127, the largest magnitude of the vector at 127
//! 4   odd numbers from -15 to 15: 16 steps of 0.335 times the root of the mean square, beyond them the last
//! 2   -3, -1, 1 or 3: 4 steps of 0.996 times it
//! 1   -1 or 1, the sign
//! ```
//!
//! Steps are those at which a normal distribution loses least (J. Max, 1960): with the largest magnitude at the end, a few
//! large numbers would leave the others no bits.

/// The widths that a vector can be kept in; 32 is f32.
pub const BITS: [u32; 5] = [32, 8, 4, 2, 1];

/// The integers of a vector, `bits` of 8, 4, 2 or 1 for each number.
///
/// # Panics
/// For other widths.
pub fn codes(vector: &[f32], bits: u32) -> Vec<i8> {
    // `2n + 1` for the n-th step above zero, up to `levels` of them on each side.
    let steps = |width: f32, levels: f32| -> Vec<i8> {
        let square = vector.iter().map(|x| x * x).sum::<f32>() / vector.len().max(1) as f32;
        let step = (width * square.sqrt()).max(f32::MIN_POSITIVE);
        vector.iter().map(|x| (2.0 * (x / step).floor().clamp(-levels, levels - 1.0) + 1.0) as i8).collect()
    };
    match bits {
        8 => {
            let largest = vector.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            vector.iter().map(|x| (x * scale).round_ties_even() as i8).collect()
        }
        4 => steps(0.3352, 8.0),
        2 => steps(0.9957, 2.0),
        1 => vector.iter().map(|x| if *x < 0.0 { -1 } else { 1 }).collect(),
        other => panic!("{other} bits: expected 8, 4, 2 or 1"),
    }
}

/// The integers of [`codes`] one after another in bytes, the first in the highest bits; the last byte is filled up with
/// zeros. What is stored is (code + 15) / 2 in 4 bits, (code + 3) / 2 in 2 bits, 1 for a positive one in 1 bit (NumPy's
/// `packbits` order); 8 bits are the integer itself.
pub fn pack(codes: &[i8], bits: u32) -> Vec<u8> {
    let stored = |code: i8| match bits {
        8 => code as u8,
        4 => ((code + 15) / 2) as u8,
        2 => ((code + 3) / 2) as u8,
        _ => u8::from(code > 0),
    };
    let in_byte = (8 / bits) as usize;
    let packed = |codes: &[i8]| {
        let bytes = codes.iter().enumerate();
        bytes.fold(0, |byte, (at, code)| byte | stored(*code) << (8 - bits as usize * (at + 1)))
    };
    codes.chunks(in_byte).map(packed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_proportional_to_the_numbers() {
        let vector = [0.9f32, -0.3, 0.1, 0.0, -0.31];
        assert_eq!(codes(&vector, 8), [127, -42, 14, 0, -44]);
        // The root of the mean square is 0.448: steps of 0.150 and 0.446.
        assert_eq!(codes(&vector, 4), [11, -3, 1, 1, -5]);
        assert_eq!(codes(&vector, 2), [3, -1, 1, 1, -1]);
        assert_eq!(codes(&[10.0, -10.0, 0.1, -0.1], 4), [9, -9, 1, -1]);
        assert_eq!(codes(&[10.0, -0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 4)[0], 15);
        assert_eq!(codes(&vector, 1), [1, -1, 1, 1, -1]);
        assert_eq!(codes(&[0.0; 3], 8), [0; 3]);
        assert_eq!(codes(&[0.0; 3], 4), [1; 3]);
    }

    #[test]
    fn codes_lie_in_bytes_from_the_highest_bit_on() {
        assert_eq!(pack(&[127, -1], 8), [127, 255]);
        assert_eq!(pack(&[15, -15, 1], 4), [0xf0, 0x80]);
        assert_eq!(pack(&[3, -1, 1, -3, 3], 2), [0b11_01_10_00, 0b11_000000]);
        assert_eq!(pack(&[1, -1, 1, 1, -1, -1, -1, 1, 1], 1), [0b1011_0001, 0b1000_0000]);
    }
}
