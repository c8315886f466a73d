//! `include/tern.h` is made from the functions and their comments by cbindgen, and kept: nobody needs cbindgen to build Tern.

use std::path::Path;

const TOP: &str = "\
/* Tern: ternary language models on the CPU, for C and what calls C. Made from capi/src by a test (UPDATE=1 cargo test -p tern-c).
 *
 * Rules that hold for every function:
 *
 * - Texts are UTF-8 and end with NUL. An argument that is NULL where it may not be, no UTF-8, out of range or otherwise wrong is an
 *   error; so is a fault inside the library. Nothing is thrown and the program does not end. `tern_last_error` says why.
 * - Pointers must be what they are said to be: a pointer to nothing, or to what was given back, cannot be told from a good one.
 * - Threads: a model may be used by any number of threads at once, which take turns within a call. A generation is used by one
 *   thread at a time, but for `tern_cancel`; a second call meanwhile is an error. Errors are kept for each thread.
 * - What a function returns for `tern_free` is the caller's; models and generations have functions of their own.
 */";

fn header() -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut config = cbindgen::Config {
        language: cbindgen::Language::C,
        header: Some(TOP.to_owned()),
        include_guard: Some("TERN_H".to_owned()),
        cpp_compat: true,
        documentation_style: cbindgen::DocumentationStyle::C,
        style: cbindgen::Style::Type,
        usize_is_size_t: true,
        no_includes: true,
        sys_includes: ["stddef.h", "stdint.h"].map(str::to_owned).to_vec(),
        ..cbindgen::Config::default()
    };
    config.function.sort_by = None;
    for (ours, theirs) in [
        ("Model", "tern_model"),
        ("MessageView", "tern_message"),
        ("Generation", "tern_generation"),
        ("Callback", "tern_callback"),
    ] {
        config.export.rename.insert(ours.to_owned(), theirs.to_owned());
    }
    let files = ["border.rs", "model.rs", "generation.rs"];
    let builder = files.iter().fold(cbindgen::Builder::new().with_config(config), |builder, file| {
        builder.with_src(source.join(file))
    });
    let mut bytes = Vec::new();
    builder.generate().expect("the sources can be read").write(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_header_is_what_the_sources_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/tern.h");
    let made = header();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "include/tern.h is not what capi/src says: run again with UPDATE=1\n{made}");
    // Every function that the library exports is in it.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut count = 0;
    for entry in std::fs::read_dir(source).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for function in text.split("#[unsafe(no_mangle)]").skip(1) {
            let name = function.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap();
            assert!(kept.contains(&format!("{name}(")), "{name} is not in the header");
            count += 1;
        }
    }
    assert!(count >= 13, "{count} functions");
}
