"""The folder that `scripts/gpu_check --prepare` makes on a machine with compilers and a network, and what becomes of it on one with a GPU.

It is small, so that it can be carried: executables are stripped and packed, and what they embed from the checkout is left out and taken
from the checkout there, which must be the same.
"""

import glob
import hashlib
import json
import lzma
import os
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIST = "prepared.json"
# Files of the checkout that an executable is searched for.
EMBEDDED = sorted(path for path in (ROOT / "assets").rglob("*") if path.is_file() and path.stat().st_size > 1 << 19)
PROVIDER = "libonnxruntime_providers_cuda.so"


class CannotPrepare(Exception):
    """With the reason."""


def digest(data):
    return hashlib.sha256(data).hexdigest()


def pieces_of(data):
    """What is not in the checkout, as bytes, and what is, as paths; in order."""
    for path in EMBEDDED:
        content = path.read_bytes()
        start = data.find(content)
        if start >= 0:
            return [*pieces_of(data[:start]), path, *pieces_of(data[start + len(content) :])]
    return [data]


def pack(executable, folder, name):
    """Writes the pieces of an executable; gives what is needed to put it together."""
    stripped = folder / f"{name}.stripped"
    if shutil.which("strip") is None or subprocess.run(["strip", "-o", stripped, executable], capture_output=True).returncode:
        shutil.copyfile(executable, stripped)
    data = stripped.read_bytes()
    stripped.unlink()
    pieces = []
    for number, piece in enumerate(pieces_of(data)):
        if isinstance(piece, pathlib.Path):
            pieces.append({"checkout": str(piece.relative_to(ROOT))})
        else:
            packed = f"{name}.{number}.xz"
            (folder / packed).write_bytes(lzma.compress(piece))
            pieces.append({"packed": packed})
    # The newest GNU C library that it asks for.
    versions = [tuple(map(int, version.split(b"."))) for version in re.findall(rb"GLIBC_(\d+\.\d+)\0", data)]
    needs = ".".join(map(str, max(versions))) if versions else None
    return {"pieces": pieces, "sha256": digest(data), "glibc": needs}


def unpack(listed, folder, target):
    """Puts an executable together."""
    read = lambda piece: (ROOT / piece["checkout"]).read_bytes() if "checkout" in piece else lzma.decompress((folder / piece["packed"]).read_bytes())
    data = b"".join(map(read, listed["pieces"]))
    if digest(data) != listed["sha256"]:
        raise CannotPrepare(f"{target.name} is not what was prepared: the checkout is another one, or a file is broken")
    target.write_bytes(data)
    target.chmod(0o755)
    return target


def cargo(*words):
    print("cargo", *words, flush=True)
    ran = subprocess.run(["cargo", *words, "--message-format=json-render-diagnostics"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if ran.returncode:
        raise CannotPrepare(f"cargo {words[0]} failed with {ran.returncode}")
    artifacts = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return {(own["target"]["name"], own["target"]["kind"][0]): own["executable"] for own in artifacts if own.get("executable")}


def onnx_runtime():
    """The folder of an ONNX Runtime with CUDA, if one was fetched or is named by ORT_DYLIB_PATH."""
    named = os.environ.get("ORT_DYLIB_PATH")
    folders = [pathlib.Path(named).parent] if named else []
    folders += map(pathlib.Path, sorted(glob.glob(str(ROOT / ".onnxruntime*"))))
    return next((folder for folder in folders if (folder / PROVIDER).exists()), None)


def prepare(folder, program):
    """Fills `folder`; `program` is an executable of lora-recycle that is built already."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / LIST).exists():
        raise CannotPrepare(f"{folder} holds something else\nhint: name a new folder")
    for old in folder.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    tests = cargo("test", "--locked", "--package", "engine", "--lib", "--test", "cuda", "--no-run")
    if program is None:
        program = cargo("build", "--locked", "--release", "--bin", "lora-recycle")["lora-recycle", "bin"]
    executables = {"cuda-tests": tests["cuda", "test"], "engine-tests": tests["engine", "lib"], "lora-recycle": program}
    listed = {"executables": {name: pack(path, folder, name) for name, path in executables.items()}, "onnxruntime": []}
    if source := onnx_runtime():
        (folder / "onnxruntime").mkdir()
        for path in sorted(source.glob("libonnxruntime*")):
            shutil.copy2(path, folder / "onnxruntime" / path.name)
            listed["onnxruntime"].append(path.name)
    else:
        print(f"ONNX Runtime with CUDA is left out: no {PROVIDER} in .onnxruntime* or beside ORT_DYLIB_PATH")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    listed["commit"] = commit.stdout.strip() or None
    (folder / LIST).write_text(json.dumps(listed, indent=1) + "\n")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB. Take it and this checkout to the machine with the GPU, and run there: scripts/gpu_check {folder.name}")
