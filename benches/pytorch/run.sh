#!/bin/sh
# Builds the engine bench, makes a virtual environment with PyTorch and ONNX Runtime where there is none, and compares.
# Options go to engine.py, which names them.
set -eu
cd "$(dirname "$0")/../.."
python=.venv/bench/bin/python
[ -x $python ] || python3 -m venv .venv/bench
$python -c "import torch, onnxruntime" 2>/dev/null || $python -m pip install --quiet torch onnxruntime numpy
engine=$(cargo bench --locked --package engine --bench engine --no-run --message-format=json |
  sed -n 's/.*"kind":\["bench"\].*"name":"engine".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
exec $python benches/pytorch/engine.py --engine "$engine" "$@"
