//! Types that are listed but not read: their names, and what to do about them.

use super::Encoding;

/// Type numbers of bitnet.cpp's lookup-table formats. Mainline removed 38; its 39 is MXFP4.
pub(super) const TL1: u32 = 38;
pub(super) const TL2: u32 = 39;
const MXFP4: u32 = 39;

/// The mainline names of the types that other readers know.
#[rustfmt::skip]
const NAMES: &[(u32, &str)] = &[
    (9, "Q8_1"), (15, "Q8_K"), (16, "IQ2_XXS"), (17, "IQ2_XS"), (18, "IQ3_XXS"), (19, "IQ1_S"), (20, "IQ4_NL"), (21, "IQ3_S"),
    (22, "IQ2_S"), (23, "IQ4_XS"), (24, "I8"), (25, "I16"), (26, "I32"), (27, "I64"), (28, "F64"), (29, "IQ1_M"),
    (31, "Q4_0_4_4"), (32, "Q4_0_4_8"), (33, "Q4_0_8_8"), (37, "I8_S"), (39, "MXFP4"), (40, "NVFP4"),
    (133, "Q6_0"), (136, "Q8_K64"),
];

/// The weights and bytes of a block, of the types whose size is known; the others may have any.
#[rustfmt::skip]
const BLOCKS: &[(u32, u64, u64)] = &[
    (9, 32, 36), (15, 256, 292), (16, 256, 66), (17, 256, 74), (18, 256, 98), (19, 256, 50), (20, 32, 18), (21, 256, 110),
    (22, 256, 82), (23, 256, 136), (24, 1, 1), (25, 1, 2), (26, 1, 4), (27, 1, 8), (28, 1, 8), (29, 256, 56),
    (39, 32, 17), (40, 64, 36),
];

/// The bytes of a tensor, where its type says them: one that reaches past the end of its file is refused, as any other.
pub(super) fn length(encoding: Encoding, rows: u64, cols: u64) -> Option<Result<u64, String>> {
    let Encoding::Other(id) = encoding else { return None };
    let (_, weights, bytes) = BLOCKS.iter().find(|entry| entry.0 == id)?;
    Some(super::blocks(rows, cols, *weights, *bytes, 0))
}

pub(super) fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Tl1 => "TL1",
        Encoding::Tl2 => "TL2",
        Encoding::Dtype(name) => name,
        Encoding::Other(id) => NAMES.iter().find(|entry| entry.0 == id).map_or("unknown", |entry| entry.1),
        _ => "unknown",
    }
}

/// Type 39 is mainline's MXFP4 (17 bytes for 32 weights) or bitnet.cpp's TL2 (about 0.21 bytes a weight).
pub(super) fn settle(encoding: Encoding, weights: u64, room: u64) -> Encoding {
    match encoding {
        Encoding::Other(MXFP4) if room < weights / 32 * 17 => Encoding::Tl2,
        other => other,
    }
}

/// Why a tensor of this encoding cannot be read, and what to do.
pub(super) fn why(encoding: Encoding) -> String {
    match encoding {
        Encoding::Tl1 | Encoding::Tl2 => format!(
            "{encoding} cannot be read, because its byte order depends on how bitnet.cpp was built and the file does not \
             say; take the I2_S file or the Hugging Face checkpoint of this model"
        ),
        Encoding::Dtype("U8") => {
            "expected weights, found U8 without `quant_method` \"bitnet\" in the configuration and a \
                                  `weight_scale` beside it"
                .to_owned()
        }
        other => format!(
            "expected an encoding that Tern reads, found {other}; convert from another file of this model"
        ),
    }
}
