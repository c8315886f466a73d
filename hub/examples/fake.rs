//! A Hub on this machine for `.ci/hub`: `fake FILE REPO PATH` offers the file at `REPO/PATH`, prints its address and answers
//! until standard input ends.

#[path = "../tests/common/mod.rs"]
mod fake;

use std::io::Read;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, repo, path] = &args[..] else { return Err("expected FILE REPO PATH".into()) };
    let hub = fake::Fake::start();
    hub.add(repo, &[(path, std::fs::read(file)?)]);
    println!("{}", hub.endpoint);
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
