//! A head in a file as it is used: the same logits, the same conversions onwards, and nothing that is no head.

use std::fs;
use std::path::{Path, PathBuf};

use tern::file::{self, OpenOptions};
use tern::{Encoding, Head, Logits, Model, Options, Row, Scratch, Sequence};
use tern_convert::dummy::{DummyOptions, Shape, dummy};
use tern_convert::{ConvertOptions, Floats, Target, convert};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden").join(name)
}

/// `input` in another form, in `dir`.
fn converted(input: &Path, dir: &Path, name: &str, options: ConvertOptions) -> PathBuf {
    let output = dir.join(name);
    convert(input, &output, &options, &mut |_, _| {}).unwrap_or_else(|error| panic!("{error}"));
    output
}

fn encoding(path: &Path, name: &str) -> Option<Encoding> {
    let file = file::open(path, OpenOptions::default()).unwrap();
    file.tensor(name).map(|tensor| tensor.encoding)
}

/// All logits of a text, then the likeliest three of another.
fn logits(path: &Path, cpu: &str) -> Vec<f32> {
    let options = Options { cpu: Some(cpu.to_owned()), ..Options::default() };
    let model = Model::open(path, &options).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(model.head_form(), Head::Int8);
    let mut all = Vec::new();
    for wanted in [Logits::All, Logits::Top(3)] {
        let mut sequences = [Sequence::new(&model, 8)];
        let rows: Vec<Row> = (1..6).map(|token| Row { sequence: 0, token, logits: wanted }).collect();
        all.extend_from_slice(model.forward(&mut Scratch::default(), &mut sequences, &rows).unwrap());
    }
    all
}

#[test]
fn a_head_in_the_file_gives_the_logits_of_one_made_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let large = dir.path().join("large.gguf");
    let mut shape = Shape::from_name("tiny").unwrap();
    shape.config.vocab = 6_000;
    dummy(&shape, &large, &DummyOptions::new(Target::I2), &mut |_, _| {}).unwrap();
    for (nth, input) in
        [golden("bitnet_online_bf16"), golden("llama_packed_bitlinear"), large].iter().enumerate()
    {
        for (to, name) in [(Target::I2, "i2"), (Target::T5, "t5")] {
            let plain = converted(input, dir.path(), &format!("{nth}-{name}"), ConvertOptions::new(to));
            let options = ConvertOptions { head: Floats::Int8, ..ConvertOptions::new(to) };
            let ready = converted(input, dir.path(), &format!("{nth}-{name}-ready"), options);
            assert_eq!(encoding(&ready, "output.weight"), Some(Encoding::H8));
            assert_eq!(encoding(&ready, "token_embd.weight"), encoding(&plain, "token_embd.weight"));
            for cpu in tern_kernels::Cpu::available() {
                assert_eq!(logits(&ready, cpu.name()), logits(&plain, cpu.name()), "{}", ready.display());
            }
            // A head that was added is left behind again; one of its own has lost what int8 does not hold.
            let back = |from: &Path, name: &str| {
                let options = ConvertOptions::new(Target::I2);
                fs::read(converted(from, dir.path(), name, options)).unwrap()
            };
            if encoding(&plain, "output.weight").is_none() {
                assert_eq!(back(&ready, "from-ready"), back(&plain, "from-plain"));
            } else {
                converted(&ready, dir.path(), "onwards", ConvertOptions::new(Target::I2S));
                assert_eq!(encoding(&dir.path().join("onwards"), "output.weight"), Some(Encoding::F32));
            }
        }
    }
}

#[test]
fn an_embedding_as_the_head_halves_the_numbers_and_is_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let input = golden("bitnet_online_bf16");
    let plain = converted(&input, dir.path(), "plain", ConvertOptions::new(Target::I2));
    let options =
        ConvertOptions { embedding: Floats::Int8, head: Floats::Int8, ..ConvertOptions::new(Target::I2) };
    let small = converted(&input, dir.path(), "small", options);
    assert_eq!(encoding(&small, "token_embd.weight"), Some(Encoding::H8));
    assert_eq!(encoding(&small, "output.weight"), None);
    let (exact, rounded) = (logits(&plain, "scalar"), logits(&small, "scalar"));
    let most = exact.iter().fold(0f32, |most, x| most.max(x.abs()));
    // Its head is the same, its embedding rounded to 8 bits.
    let near = |(a, b): (&f32, &f32)| !b.is_finite() || (a - b).abs() < 0.1 * most;
    assert!(exact.iter().zip(&rounded).take(5 * exact.len() / 10).all(near));
    assert_ne!(exact, rounded);
}

#[test]
fn what_cannot_hold_a_head_or_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (input, out) = (golden("bitnet_online_bf16"), dir.path().join("out"));
    let refused = |input: &Path, to: Target| {
        let options = ConvertOptions { head: Floats::Int8, ..ConvertOptions::new(to) };
        convert(input, &out, &options, &mut |_, _| {}).unwrap_err().to_string()
    };
    assert!(refused(&input, Target::I2S).contains("i2_s has no int8 head"));
    assert!(refused(&input, Target::Hf).contains("cannot hold H8"));
    let ternary = dir.path().join("ternary.gguf");
    let mut shape = Shape::from_name("tiny").unwrap();
    shape.ternary_embedding = true;
    dummy(&shape, &ternary, &DummyOptions::new(Target::I2), &mut |_, _| {}).unwrap();
    assert!(refused(&ternary, Target::I2).contains("holds trits"));
    let options =
        DummyOptions { head: Floats::Int8, embedding: Floats::Int8, ..DummyOptions::new(Target::I2) };
    let error = dummy(&Shape::from_name("tiny").unwrap(), &out, &options, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("tern convert --head int8"), "{error}");
    assert!(!out.exists());

    let options = ConvertOptions { head: Floats::Int8, ..ConvertOptions::new(Target::I2) };
    let ready = converted(&input, dir.path(), "ready.gguf", options);
    let tensor = {
        let file = file::open(&ready, OpenOptions::default()).unwrap();
        file.tensor("output.weight").unwrap().bytes.to_vec()
    };
    let mut bytes = fs::read(&ready).unwrap();
    let at = bytes.windows(tensor.len()).position(|window| window == tensor).unwrap();
    bytes[at] = 0x80;
    fs::write(&ready, &bytes).unwrap();
    let error = Model::open(&ready, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("output.weight") && error.contains("not that of their codes"), "{error}");
}
