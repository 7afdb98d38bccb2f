#!/bin/sh
# Builds the engine bench, makes a virtual environment with PyTorch where there is none, and compares the two.
set -eu
cd "$(dirname "$0")/../.."
[ -x .venv/bench/bin/python ] || python3 -m venv .venv/bench
.venv/bench/bin/python -c "import torch" 2>/dev/null || .venv/bench/bin/pip install --quiet torch numpy
engine=$(cargo bench --bench engine --no-run --message-format=json |
  sed -n 's/.*"kind":\["bench"\].*"name":"engine".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
exec .venv/bench/bin/python benches/pytorch/engine.py --engine "$engine" "$@"
