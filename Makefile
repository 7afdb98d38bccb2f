# Every target stops at the first step that fails. Paths are relative, so that a checkout may live anywhere.

LISTEN ?= 127.0.0.1:8080

.DEFAULT_GOAL := help
.PHONY: help run setup test browser python-client onnx-examples check emulate kernels mutants fmt bench experiments-smoke cargo
.NOTPARALLEL:

help:
	@echo 'make run     fetch what is missing, build, and serve the page on http://$(LISTEN) (LISTEN=address:port to change)'
	@echo 'make test    all checks and tests, as continuous integration runs them'
	@echo 'make setup   only fetch the ONNX Runtime library (.onnxruntime/)'
	@echo '             with GPU=1 (also make run GPU=1) ONNX Runtime with CUDA, too: 830 MB, for Linux on x86-64'
	@echo 'make check   formatting, clippy, retired words, tables and links of the documents, without tests'
	@echo 'make emulate run the tests of the CUDA kernels on the CPU, with sanitizers; make kernels compiles them for six architectures'
	@echo 'make mutants plant defects in kernels and their launches and compare which check catches each (some minutes)'
	@echo 'make fmt     format the source'
	@echo 'make bench   benchmarks (criterion)'
	@echo 'make experiments-smoke   a small version of each experiment of docs/experiments/NOTEBOOK.md (needs Pillow, numpy and fonts)'

run: setup cargo
	cargo run --release --locked -- serve --listen $(LISTEN)

setup:
	@GPU='$(GPU)' scripts/fetch_onnxruntime

test: setup browser python-client onnx-examples check emulate kernels
	cargo test --workspace --locked

browser:
	@scripts/ensure_chromium
	@scripts/fetch_axe

python-client:
	@scripts/ensure_openapi_client

onnx-examples:
	@scripts/ensure_onnx_examples

check: cargo
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@python3 docs/experiments/tables.py --check
	@scripts/import_circles
	@scripts/retired_words
	@scripts/roofline --check
	@python3 docs/experiments/links.py

emulate:
	@scripts/ensure_clang
	@scripts/emulate

kernels:
	@scripts/kernels_compile

mutants:
	@scripts/mutants

fmt: cargo
	cargo fmt --all

bench: setup cargo
	cargo bench --workspace --locked

experiments-smoke: setup cargo
	cargo build --release --locked --workspace --bins --examples
	rm -rf target/experiments-smoke
	python3 docs/experiments/distance.py target/experiments-smoke --small
	if [ -d target/experiments-smoke/all-clothes ]; then \
	  python3 docs/experiments/temperature.py target/release/lora-recycle target/experiments-smoke/all-clothes target/experiments-smoke/glyphs --small; fi
	python3 docs/experiments/glyphs.py target/experiments-smoke --small
	python3 docs/experiments/ablations.py target/experiments-smoke --small
	python3 docs/experiments/quality.py target/experiments-smoke --small
	python3 docs/experiments/domains.py target/experiments-smoke --small
	python3 docs/experiments/pruned.py target/experiments-smoke --small
	python3 docs/experiments/tables.py --results target/experiments-smoke --out target/experiments-smoke

cargo:
	@command -v cargo >/dev/null || { echo 'make: cargo is not on PATH' >&2; \
	  echo 'hint: install Rust 1.95 or newer (for example with rustup) and a C compiler, then run make again' >&2; exit 1; }
