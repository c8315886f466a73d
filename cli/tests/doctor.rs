//! `tern doctor` on the machine that runs the tests, which is expected to be well.

mod common;

use common::run;

#[test]
fn this_machine_is_well_and_every_kernel_was_checked() {
    let text = run(&["doctor"]).ok();
    assert!(text.ends_with("\nall checks passed\n"), "{text}");
    let json = run(&["doctor", "--json"]).json();
    assert_eq!(json["passed"], true);
    let names: Vec<_> =
        json["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    for kernel in json["machine"]["kernels"].as_array().unwrap() {
        for what in ["i2 products", "t5 products", "floats", "model", "int8 peak"] {
            let name = format!("{} {what}", kernel.as_str().unwrap());
            assert!(names.contains(&&*name), "{name} is missing: {names:?}");
            assert!(text.contains(&name), "{text}");
        }
    }
}
