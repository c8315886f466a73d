//! Writing and converting take little memory, whatever the model's size. Alone in its process, which it measures.

#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_the_model() {
    use tern_convert::dummy::{DummyOptions, Shape, dummy};
    use tern_convert::{ConvertOptions, Floats, Target, convert};

    /// The most memory this process ever had, mapped files included.
    fn peak_megabytes() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    let dir = tempfile::tempdir().unwrap();
    let mut shape = Shape::from_name("tiny").unwrap();
    shape.config.dim = 1024;
    shape.config.hidden = 8192;
    shape.config.head_dim = 256;
    shape.config.vocab = 32_768;
    let [first, second, third] = ["first", "second", "third"].map(|name| dir.path().join(name));
    let options = DummyOptions { embedding: Floats::F32, ..DummyOptions::new(Target::I2) };
    dummy(&shape, &first, &options, &mut |_, _| {}).unwrap();
    convert(&first, &second, &ConvertOptions::new(Target::Hf), &mut |_, _| {}).unwrap();
    convert(&second, &third, &ConvertOptions::new(Target::T5), &mut |_, _| {}).unwrap();
    let model = std::fs::metadata(&first).unwrap().len() >> 20;
    assert!(model > 140, "{model} MB");
    assert!(peak_megabytes() < 64, "{} MB of memory for a model of {model} MB", peak_megabytes());
}
