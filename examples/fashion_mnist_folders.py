#!/usr/bin/env python3
"""Writes test images of Fashion-MNIST as PNG files into one folder per class, for `lora-recycle evaluate OUT`.

The data comes from Debian's package `dataset-fashion-mnist`; --data names another folder with the same two files.
Class by class the first N test images are taken, in the order of the file, so that two runs write the same bytes.
Needs the standard library only.
"""
import argparse
import gzip
import pathlib
import struct
import sys
import zlib

CLASSES = [
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
]
IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def read_idx(path, dimensions):
    """Sizes and bytes of a gzipped idx file of unsigned bytes with `dimensions` axes."""
    with gzip.open(path) as file:
        content = file.read()
    if content[:4] != bytes([0, 0, 8, dimensions]):
        sys.exit(f"{path} is not an idx file of unsigned bytes with {dimensions} axes")
    header = 4 + 4 * dimensions
    return struct.unpack(f">{dimensions}I", content[4:header]), content[header:]


def grey_png(pixels, width, height):
    """An 8-bit grey PNG of `height` rows of `width` bytes."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    # Each row starts with its filter type; 0 leaves the bytes as they are.
    rows = b"".join(b"\0" + pixels[start : start + width] for start in range(0, width * height, width))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="folder to write; class folders are made inside")
    parser.add_argument("--per-class", type=int, default=100, help="images of each class (default: 100)")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("/usr/share/datasets/fashion-mnist"))
    arguments = parser.parse_args()
    if not (arguments.data / IMAGES).is_file():
        sys.exit(f"{arguments.data / IMAGES} is missing\nhint: apt install dataset-fashion-mnist, or name its folder with --data")

    (count, height, width), pixels = read_idx(arguments.data / IMAGES, 3)
    _, labels = read_idx(arguments.data / LABELS, 1)
    written = [0] * len(CLASSES)
    for index in range(count):
        label = labels[index]
        if written[label] == arguments.per_class:
            continue
        folder = arguments.out / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        start = index * height * width
        (folder / f"{written[label]:04}.png").write_bytes(grey_png(pixels[start : start + height * width], width, height))
        written[label] += 1
    if min(written) < arguments.per_class:
        print(f"only {min(written)} images in the smallest class", file=sys.stderr)
    print(f"{sum(written)} images in {len(CLASSES)} classes: {arguments.out}")


if __name__ == "__main__":
    main()
