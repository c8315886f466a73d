# `make ci` is what CI runs: `.ci/run` all of it, the workflow one part to a job.

.PHONY: ci check test tests lint doc fuzz-check arm wasm web browser clients exports hub shells book c py ray chart lm-eval miri fuzz release release-check package-check systems

# The tests come last, so that their closing lines close the log.
ci: lint doc fuzz-check arm wasm browser clients exports hub shells book c py chart lm-eval test

check: lint doc fuzz-check test

test:
	cargo test --workspace

# Builds the tests, and with them the `tern` that clients talk to.
tests:
	cargo test --workspace --no-run

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Whether the fuzz targets compile, with any tool chain. Nothing is linked, so no C++ compiler has to make libFuzzer.
fuzz-check:
	CUSTOM_LIBFUZZER_PATH=$(CURDIR)/fuzz/libfuzzer.a RUSTFLAGS="-D warnings" cargo check --manifest-path fuzz/Cargo.toml --target-dir target/fuzz

# The kernels' tests and the reference models on 64-bit Arm under qemu, and the kernels' tests in WebAssembly.
arm:
	.ci/cross-arm

wasm:
	.ci/cross-wasm

# The page that runs by itself, with the engine in the browser: target/web/site, and its package target/web/npm.
web:
	web/build

# The same in headless Chromium.
browser: tests web
	.ci/web

# Other people's programs: clients of the server, what loads Tern's exports, the Hub's own client.
clients: tests
	.ci/clients

exports: tests
	.ci/exports

hub: tests
	.ci/hub

# Completion in the shells themselves.
shells: tests
	.ci/shells

# The C interface: gcc, the address sanitizer, Node.
c: tests
	.ci/c

# The pages as a site, in target/book.
book:
	.ci/book

# The Python package: its wheel, its tests, its types.
py:
	.ci/py

# The same on Ray: batch jobs, a service. Five minutes on two cores, so not a part of `ci`.
ray:
	.ci/ray

# The chart and KServe's manifest, without a cluster.
chart: tests
	.ci/chart

# lm-eval through the Python package, beside `tern eval tasks` and the server: the same item by item.
lm-eval: tests py
	.ci/lm-eval

# Archives, packages, image, lists of parts and checksums in target/dist; then all of it tried in a bare system.
release:
	deploy/release

release-check:
	.ci/release

# Whether the program compiles for Windows and macOS: minutes.
systems:
	.ci/systems

# Every crate's tarball, built from itself in order: minutes. Their contents are looked at by engine/tests/house.rs.
package-check:
	cargo package --workspace --locked

# What shares memory between threads, in Miri, with some orders of the threads: the pool, parts of arrays, buffers, and the
# smallest run of every kernel that uses them. Needs a nightly tool chain with miri and rust-src (`rustup component add`).
miri:
	MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-many-seeds=0..4" cargo +nightly miri test -p tern-kernels --lib -- pool buffer dense::tests::ext
	MIRIFLAGS="-Zmiri-disable-isolation" cargo +nightly miri test -p tern-kernels --test shared
	MIRIFLAGS="-Zmiri-disable-isolation" cargo +nightly miri test -p tern --lib tokenizer::

# A minute for each target; needs a nightly tool chain and cargo-fuzz.
fuzz:
	for target in gguf safetensors tokenizer template request calls grammar; do mkdir -p fuzz/corpus/$$target && cargo +nightly fuzz run $$target fuzz/corpus/$$target $$(ls -d fuzz/seeds/$$target 2>/dev/null) -- -max_total_time=60 || exit 1; done
