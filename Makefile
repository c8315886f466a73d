# `make check arm wasm` is what CI runs.

.PHONY: check test lint doc arm wasm miri fuzz

check: test lint doc

test:
	cargo test --workspace

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# The kernels' tests and the reference models on 64-bit Arm under qemu, and the kernels' tests in WebAssembly.
arm:
	.ci/cross-arm

wasm:
	.ci/cross-wasm

# What shares memory between threads, in Miri, with some orders of the threads: the pool, parts of arrays, buffers, and the
# smallest run of every kernel that uses them. Needs a nightly tool chain with miri and rust-src (`rustup component add`).
miri:
	MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-many-seeds=0..4" cargo +nightly miri test -p tern-kernels --lib -- pool buffer dense::tests::ext
	MIRIFLAGS="-Zmiri-disable-isolation" cargo +nightly miri test -p tern-kernels --test shared
	MIRIFLAGS="-Zmiri-disable-isolation" cargo +nightly miri test -p tern --lib tokenizer::

# A minute for each target; needs a nightly tool chain and cargo-fuzz.
fuzz:
	for target in gguf safetensors tokenizer template request calls grammar; do mkdir -p fuzz/corpus/$$target && cargo +nightly fuzz run $$target fuzz/corpus/$$target $$(ls -d fuzz/seeds/$$target 2>/dev/null) -- -max_total_time=60 || exit 1; done
