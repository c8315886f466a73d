//! GGUF files cut short, broken at random, and each lie that the format allows.

use crate::fields::fields;
use crate::gguf_bytes::{Gguf, string};
use crate::hostile::{nasty, peak_mib, read, survives, walk};
use std::path::Path;
use tern::Encoding;
use tern::codec::{self, Trits};
use tern::file::{self, File, OpenOptions};
use tern::{Random, Result};

/// Opens a GGUF and reads what it holds.
fn open_gguf(bytes: Vec<u8>) -> Result<File> {
    let file = file::from_bytes(Path::new("bad.gguf"), bytes.into(), OpenOptions::default())?;
    walk(&file)?;
    Ok(file)
}

/// A model that is only a vocabulary, as tokenizer conversions write it.
fn vocabulary() -> Vec<u8> {
    let tokens: Vec<String> = (0..200).map(|i| format!("tok{i}")).collect();
    let mut gguf = Gguf::default();
    gguf.text("general.architecture", "llama").text("tokenizer.ggml.model", "gpt2");
    gguf.strings("tokenizer.ggml.tokens", &tokens).strings("tokenizer.ggml.merges", &["t o", "k 1"]);
    gguf.array("tokenizer.ggml.token_type", 5, 200, &[1, 0, 0, 0].repeat(200));
    gguf.array("some.bools", 7, 3, &[0, 1, 1]).u32("tokenizer.ggml.bos_token_id", 1);
    gguf.bytes()
}

/// A model with Tern's own tensors, one scale for a row in the second.
fn own() -> Vec<u8> {
    let mut gguf = Gguf::default();
    gguf.text("general.architecture", "test").u32("general.alignment", 64);
    for (encoding, scales) in [
        (Encoding::I2, tern_kernels::Scales::One(0.5)),
        (Encoding::T5, tern_kernels::Scales::rows(70, vec![0.25; 20])),
    ] {
        let mut row = |row: usize, out: &mut [i8]| {
            out.iter_mut().enumerate().for_each(|(col, trit)| *trit = ((row * 7 + col * 5) % 3) as i8 - 1);
            Ok(())
        };
        let source = codec::Source { rows: 20, cols: 70, scales: &scales, row: &mut row };
        let mut data = Vec::new();
        codec::encode_ternary(encoding, source, &mut data).unwrap();
        gguf.tensor(encoding.name(), &[70, 20], encoding.gguf_type().unwrap(), data);
    }
    gguf.bytes()
}

#[test]
fn small_files_may_end_at_any_byte() {
    for whole in [read("gguf/types_v3.gguf"), vocabulary(), own()] {
        // The padding behind the last tensor, or behind a header without tensors, may be missing.
        let needed = match open_gguf(whole.clone()).unwrap().tensors().last() {
            Some(last) => whole.len() - (last.bytes.len().next_multiple_of(64) - last.bytes.len()),
            None => fields(&whole).last().unwrap().end,
        };
        for end in 0..whole.len() {
            let failed = survives(&format!("cut at {end}"), "bad.gguf", || open_gguf(whole[..end].to_vec()));
            assert_eq!(failed, end < needed, "cut at {end} of {}", whole.len());
        }
    }
}

#[test]
fn a_thousand_broken_ggufs() {
    let mut random = Random(2);
    let before = peak_mib();
    for (name, whole) in [
        ("ternary", read("gguf/bitnet_b158_i2s.gguf")),
        ("types", read("gguf/types_v3.gguf")),
        ("vocabulary", vocabulary()),
        ("own", own()),
    ] {
        let fields = fields(&whole);
        let header = fields.last().unwrap().end;
        let mut refused = 0;
        for nth in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(3) {
                match random.below(6) {
                    // One field of the header becomes another number ...
                    0..=2 => {
                        let field = fields[random.below(fields.len())].clone();
                        let mut was = [0; 8];
                        was[..field.len().min(8)]
                            .copy_from_slice(&bytes[field.clone()][..field.len().min(8)]);
                        let value = nasty(&mut random, u64::from_le_bytes(was)).to_le_bytes();
                        let length = field.len().min(8);
                        bytes[field.start..field.start + length].copy_from_slice(&value[..length]);
                    }
                    // ... or the bytes of another field of its size (duplicates, overlaps, other types);
                    3 => {
                        let (from, to) =
                            (&fields[random.below(fields.len())], &fields[random.below(fields.len())]);
                        if from.len() == to.len() {
                            bytes.copy_within(from.clone(), to.start);
                        }
                    }
                    // a byte changes, in the header or in the tail of the file;
                    4 => {
                        let at = if random.below(2) == 0 {
                            random.below(header)
                        } else {
                            random.below(bytes.len())
                        };
                        bytes[at] = random.bits() as u8;
                    }
                    // bytes go missing.
                    _ => {
                        let at = random.below(header);
                        bytes.drain(at..(at + 1 + random.below(16)).min(header));
                        bytes.resize(whole.len(), 0);
                    }
                }
            }
            refused += u32::from(survives(&format!("{name} mutant {nth}"), "bad.gguf", || open_gguf(bytes)));
        }
        // The others changed a value, a name or a weight for another valid one.
        assert!(refused > 120, "{name}: only {refused} of 300 refused");
    }
    assert!(peak_mib() - before < 256, "from {before} to {} MiB", peak_mib());
}

#[test]
fn a_gguf_that_lies_is_refused_by_name() {
    let line = |gguf: &mut Gguf| open_gguf(gguf.bytes()).unwrap_err().to_string();
    let refuses = |gguf: &mut Gguf, expected: &str| {
        let line = line(gguf);
        assert!(line.starts_with("bad.gguf: ") && line.contains(expected), "{line}\nexpected {expected}");
    };
    let f32s = |count: usize| vec![0; 4 * count];
    let new = Gguf::default;

    refuses(&mut Gguf { version: 1, ..new() }, "expected GGUF version 2 or 3, found version 1");
    refuses(
        &mut Gguf { version: 0x0300_0000, ..new() },
        "expected a little-endian GGUF, found a big-endian one",
    );
    refuses(&mut Gguf { version: 4, ..new() }, "expected GGUF version 2 or 3, found version 4");
    refuses(
        &mut Gguf { pair_count: Some(1 << 63), ..new() },
        "expected at most 0 keys, found a count of 9223372036854775808",
    );
    refuses(&mut Gguf { tensor_count: Some(1 << 40), ..new() }, "found a count of 1099511627776");

    refuses(&mut Gguf { pair_count: Some(3), ..new() }, "expected at most 0 keys, found a count of 3");
    refuses(new().u32("a", 1).u32("a", 2), "key `a`: expected each key once, found it twice");
    refuses(new().value("a", 7, &[2]), "key `a`: expected a bool of 0 or 1, found 2");
    refuses(new().value("a", 13, &[0; 8]), "key `a`: expected a value type of 0 to 12, found 13");
    refuses(
        new().value("a", 8, &[&4u64.to_le_bytes()[..], b"\xff\xfe  "].concat()),
        "key `a`: expected UTF-8 in a string",
    );
    refuses(
        new().value("a", 8, &(1u64 << 60).to_le_bytes()),
        "key `a`: expected 1152921504606846976 bytes of a string",
    );
    refuses(
        new().array("a", 9, 1, &[0; 20]),
        "key `a`: expected an array of numbers or strings, found an array of arrays",
    );
    refuses(new().array("a", 10, 1 << 61, &[0; 20]), "found a count of 2305843009213693952");
    refuses(new().array("a", 7, 2, &[1, 9]), "key `a`: expected bools of 0 or 1, found 9");
    refuses(new().array("a", 8, 1, &string(b"\x80")), "key `a`: expected UTF-8 in a string of an array");
    let mut bad_key = new();
    bad_key.pairs.push([&string(b"\xc3\x28")[..], &[4, 0, 0, 0, 1, 0, 0, 0]].concat());
    refuses(&mut bad_key, "expected UTF-8 in a key at byte 32");

    for (kind, value, found) in [(4, 0u32, "u32 0"), (4, 48, "u32 48"), (5, 32, "i32 32")] {
        let mut gguf = new();
        gguf.value("general.alignment", kind, &value.to_le_bytes());
        let expected =
            format!("key `general.alignment`: expected a u32 that is a power of two, found {found}");
        refuses(&mut gguf, &expected);
    }
    let mut huge = new();
    huge.u32("general.alignment", 1 << 31).tensor("w", &[4], 0, f32s(4));
    huge.alignment = 32; // how it is laid out
    refuses(&mut huge, "expected tensor data at byte 2147483648, found the end of the file");
    refuses(
        new().value("split.count", 2, &[3, 0]),
        "key `split.count`: expected a whole model, found one of 3 parts",
    );

    refuses(new().tensor("w", &[], 0, f32s(1)), "tensor `w`: expected 1 to 4 dimensions, found 0");
    refuses(new().tensor("w", &[1; 5], 0, f32s(1)), "tensor `w`: expected 1 to 4 dimensions, found 5");
    refuses(
        new().tensor("w", &[4, 0], 0, f32s(4)),
        "tensor `w`: expected dimensions above 0 whose product fits 63 bits",
    );
    refuses(
        new().tensor("w", &[1 << 32, 1 << 31], 0, f32s(4)),
        "product fits 63 bits, found [4294967296, 2147483648]",
    );
    refuses(new().tensor("w", &[1 << 61], 0, f32s(4)), "tensor `w`: expected");
    refuses(new().tensor(&"n".repeat(64), &[4], 0, f32s(4)), "expected a name of at most 63 bytes, found 64");
    refuses(
        new().tensor("w", &[4], 0, f32s(4)).tensor("w", &[4], 0, f32s(4)),
        "tensor `w`: expected each name once",
    );
    refuses(
        new().tensor("line\nbreak", &[4], 0, f32s(1)),
        "tensor `line\\nbreak`: expected 16 bytes of F32 for [4]",
    );

    let mut offset = new();
    offset.tensor("w", &[4], 0, f32s(4)).offsets = vec![8];
    refuses(&mut offset, "tensor `w`: expected an offset that is a multiple of 32, found 8");
    offset.offsets = vec![32];
    refuses(&mut offset, "tensor `w`: expected the first tensor at offset 0, found 32");
    let mut overlap = new();
    overlap.tensor("a", &[16], 0, f32s(16)).tensor("b", &[16], 0, f32s(16)).offsets = vec![0, 32];
    refuses(&mut overlap, "tensor `a`: expected 64 bytes of F32 for [16], found 32 up to tensor `b`");
    overlap.offsets = vec![0, 0];
    refuses(&mut overlap, "expected 64 bytes of F32 for [16], found 0 up to tensor");
    overlap.offsets = vec![0, u64::MAX - 31];
    refuses(&mut overlap, "tensor `a`: expected 64 bytes of F32 for [16], found 128 to the end of the file");
    let mut gap = new();
    gap.tensor("a", &[4], 0, f32s(4)).tensor("b", &[4], 0, f32s(4)).offsets = vec![0, 64];
    gap.tail = 64;
    refuses(&mut gap, "tensor `a`: expected 16 bytes of F32 for [4], found 64 up to tensor `b`");
    refuses(
        new().tensor("w", &[8], 0, f32s(4)),
        "tensor `w`: expected 32 bytes of F32 for [8], found 16 to the end",
    );
    refuses(
        new().tensor("w", &[100], 8, vec![0; 100]),
        "tensor `w`: expected rows of whole blocks of 32, found 100 columns",
    );
    refuses(
        new().tensor("w", &[64, 3], 36, vec![0; 80]),
        "expected a multiple of 128 weights for the blocks of I2_S",
    );
    // Type 36 was another format once, of another size.
    refuses(
        new().tensor("w", &[128, 2], 36, vec![0; 144]),
        "tensor `w`: expected 96 bytes of I2_S for [2, 128], found 144",
    );
}

#[test]
fn types_that_cannot_be_read_are_listed_and_refused_on_use() {
    let mut gguf = Gguf::default();
    gguf.tensor("tl1", &[128, 4], 38, vec![0; 160]);
    gguf.tensor("tl2", &[128, 4], 39, vec![0; 128]);
    gguf.tensor("mxfp4", &[128, 4], 39, vec![0; 272]);
    gguf.tensor("k", &[256, 2], 15, vec![0; 584]);
    gguf.tensor("new", &[256, 2], 777, vec![0; 100]);
    let file = file::from_bytes(Path::new("bad.gguf"), gguf.bytes().into(), OpenOptions::default()).unwrap();
    let names: Vec<String> = file.tensors().iter().map(|tensor| tensor.encoding.to_string()).collect();
    assert_eq!(names, ["TL1", "TL2", "MXFP4 (type 39)", "Q8_K (type 15)", "unknown (type 777)"]);
    for tensor in file.tensors() {
        let why = Trits::open(tensor).unwrap_err();
        let mut row = vec![0.0; tensor.cols()];
        assert_eq!(codec::floats(tensor, 0, &mut row).unwrap_err(), why);
        assert!(why.contains(&tensor.encoding.to_string()) && !why.contains('\n'), "{why}");
        assert_eq!(tensor.name.starts_with("tl"), why.contains("how bitnet.cpp was built"), "{why}");
    }
}

#[test]
fn tensors_of_types_that_are_only_listed_end_with_the_file_too() {
    // Type, weights and bytes of a block.
    let types = [
        (9, 32, 36),
        (15, 256, 292),
        (16, 256, 66),
        (17, 256, 74),
        (18, 256, 98),
        (19, 256, 50),
        (20, 32, 18),
        (21, 256, 110),
        (22, 256, 82),
        (23, 256, 136),
        (24, 1, 1),
        (25, 1, 2),
        (26, 1, 4),
        (27, 1, 8),
        (28, 1, 8),
        (29, 256, 56),
        (40, 64, 36),
    ];
    for (type_id, weights, bytes) in types {
        let whole = 1024 / weights * bytes;
        let open = |length: usize| {
            let bytes = Gguf::default().tensor("w", &[256, 4], type_id, vec![0; length]).bytes();
            file::from_bytes(Path::new("bad.gguf"), bytes.into(), OpenOptions::default())
        };
        assert_eq!(open(whole).unwrap().tensors()[0].bytes.len(), whole);
        let cut = open(whole - 1).unwrap_err();
        let expected = format!("found {} to the end of the file", whole - 1);
        assert!(
            cut.to_string().contains("tensor `w`: expected") && cut.to_string().contains(&expected),
            "{cut}"
        );
    }
}

#[test]
fn codes_and_scales_that_nobody_writes_are_refused() {
    let refuses = |type_id: u32, data: Vec<u8>, dims: &[u64], expected: &str| {
        let line =
            open_gguf(Gguf::default().tensor("w", dims, type_id, data).bytes()).unwrap_err().to_string();
        assert!(line.contains("bad.gguf: tensor `w`: ") && line.contains(expected), "{line}");
    };
    let i2_s =
        |code: u8, scale: f32| [&[0x55, code][..], &[0x55; 30], &scale.to_le_bytes(), &[9; 28]].concat();
    for code in [0x03, 0x0c, 0x30, 0xc0] {
        refuses(36, i2_s(code, 1.0), &[128], "expected codes of 0, 1 or 2, found a 3 in row 0");
    }
    for scale in [f32::NAN, f32::INFINITY, -1.0, -0.0] {
        refuses(
            36,
            i2_s(0, scale),
            &[128],
            &format!("expected a finite scale of 0 or more, found {scale:?}"),
        );
    }
    open_gguf(Gguf::default().tensor("w", &[128], 36, i2_s(0xaa, 1.0)).bytes()).unwrap();
    let tq2_0 = |code: u8, d: u16| [&[0x55, code][..], &[0x55; 62], &d.to_le_bytes()].concat();
    refuses(35, tq2_0(0xc0, 0x3c00), &[256], "found a 3 in row 0");
    refuses(35, tq2_0(0, 0x7c00), &[256], "expected a finite scale of 0 or more, found inf");
    refuses(
        34,
        [&[0; 52][..], &[0, 0x80]].concat(),
        &[256],
        "expected a finite scale of 0 or more, found -0.0",
    );
    refuses(135, [&1f32.to_le_bytes()[..], &[0xff; 16]].concat(), &[64], "found a 3 in row 0");
    refuses(
        134,
        [&[0, 0xfc][..], &[0; 13]].concat(),
        &[64],
        "expected a finite scale of 0 or more, found -inf",
    );
    refuses(0, f32::NAN.to_le_bytes().repeat(4), &[2, 2], "expected finite weights, found NaN in row 0");

    // Tern's own: a T5 byte that no digits give, then a tail that does not fit the matrix.
    let own = |byte: u8, size: u32, count: u32| {
        let words = [size.to_le_bytes(), count.to_le_bytes()].concat();
        [&[byte; 64][..], &words, &[0; 56], &1f32.to_le_bytes().repeat(16)].concat()
    };
    open_gguf(
        Gguf { alignment: 64, ..Gguf::default() }
            .u32("general.alignment", 64)
            .tensor("w", &[20, 16], 0x5452_0005, own(125, 20, 16))
            .bytes(),
    )
    .unwrap();
    refuses(0x5452_0005, own(251, 20, 16), &[20, 16], "expected codes of 0, 1 or 2, found byte 251 in row 0");
    refuses(
        0x5452_0005,
        own(0, 20, 15),
        &[20, 16],
        "expected a scale for every 20 columns of 16 x 20, found 15 scales",
    );
    refuses(0x5452_0005, own(0, 0, u32::MAX), &[20, 16], "found 4294967295 scales");
    refuses(0x5452_0002, own(0, 0, 1), &[17, 16], "tensor `w`: expected");
    refuses(
        0x5452_0002,
        vec![0; 64],
        &[16, 16],
        "expected 64 bytes of blocks and a tail of 64, found 64 bytes",
    );
}

/// A seed that is refused at once would teach a fuzzer nothing.
#[test]
fn the_seeds_of_the_fuzzer_are_read_to_the_end() {
    for name in ["own", "trits", "vocabulary"] {
        open_gguf(read(&format!("../../fuzz/seeds/gguf/{name}"))).unwrap();
    }
    let refused = open_gguf(read("../../fuzz/seeds/gguf/refused")).unwrap_err().to_string();
    assert!(refused.contains("tensor `tl1`: TL1 cannot be read"), "{refused}");
}

#[test]
fn whole_files_are_accepted() {
    for bytes in [vocabulary(), own(), read("gguf/types_v2.gguf"), read("gguf/bitnet_b158_i2s.gguf")] {
        open_gguf(bytes).unwrap();
    }
}

#[test]
fn goldens_may_end_at_any_boundary() {
    for (name, alignment) in
        [("types_v2", 64), ("types_v3", 64), ("bitnet_b158_i2s", 32), ("llama_i2s_permuted", 32)]
    {
        let whole = read(&format!("gguf/{name}.gguf"));
        let fields = fields(&whole);
        let mut ends: Vec<usize> =
            fields.iter().flat_map(|field| [field.start, field.end - 1, field.end]).collect();
        let mut at = fields.last().unwrap().end.next_multiple_of(alignment);
        for tensor in open_gguf(whole.clone()).unwrap().tensors() {
            ends.extend([at - 1, at, at + 1, at + tensor.bytes.len() - 1]);
            at = (at + tensor.bytes.len()).next_multiple_of(alignment);
        }
        assert_eq!(at, whole.len());
        for end in ends {
            let failed =
                survives(&format!("{name} cut at {end}"), "bad.gguf", || open_gguf(whole[..end].to_vec()));
            assert!(failed, "{name} cut at {end} of {} is accepted", whole.len());
        }
    }
}
