#!/usr/bin/env python3
"""Writes photographs as PNG files into one folder per class: dam, fish, hammer, mammal, measuring-tape, monument, solar-panel, windmill.

They come from Debian's package `gcompris-qt-data`, whose files name author and licence of each (free ones all); --data names another folder with the
same `.rcc` files, such as one that `dpkg-deb -x` has filled. Few pictures, 5 to 28 per class, of things that few would confuse: enough to see whether
an adapter harms what the bare model knows. Needs Pillow.
"""
import argparse
import io
import pathlib
import re
import struct
import sys
import zlib

try:
    from PIL import Image
except ImportError:
    sys.exit("Pillow is missing\nhint: python3 -m pip install pillow, or apt install python3-pil")

# Class: archive, and names within it.
CLASSES = {
    "dam": ("categorization", r"/dam\d+\.webp"),
    "fish": ("categorization", r"/fish\d+\.webp"),
    "hammer": ("categorization", r"/hammer\d+\.webp"),
    "mammal": ("explore_world_animals|explore_farm_animals",
               r"/(bison|giraffe|hedgehog|jaguar|kangaroo|koala|lemur|moose|narwhal|panda|polar_bear|cat|cow|dog|horse|pig|sheep)\.webp"),
    "measuring-tape": ("categorization", r"/measuringTape\d+\.webp"),
    "monument": ("categorization", r"/monuments/.+\.webp"),
    "solar-panel": ("categorization", r"/solar\d+\.webp"),
    "windmill": ("categorization", r"/windmill\d*\.webp"),
}
LARGEST_SIDE = 320
FOLDER, COMPRESSED = 2, 1


def read_archive(content):
    """Paths and bytes of the files in a Qt resource archive."""
    if content[:4] != b"qres":
        raise ValueError("no Qt resource archive")
    version, tree, data, names = struct.unpack(">4I", content[4:20])
    node_bytes = 14 if version < 2 else 22

    def walk(index, above):
        start = tree + index * node_bytes
        name_at, flags = struct.unpack(">IH", content[start : start + 6])
        (length,) = struct.unpack(">H", content[names + name_at : names + name_at + 2])
        name = content[names + name_at + 6 : names + name_at + 6 + 2 * length].decode("utf-16-be")
        path = f"{above}/{name}" if name else above
        if flags & FOLDER:
            count, first = struct.unpack(">II", content[start + 6 : start + 14])
            for child in range(first, first + count):
                yield from walk(child, path)
            return
        (data_at,) = struct.unpack(">I", content[start + 10 : start + 14])
        (size,) = struct.unpack(">I", content[data + data_at : data + data_at + 4])
        own = content[data + data_at + 4 : data + data_at + 4 + size]
        yield path, zlib.decompress(own[4:]) if flags & COMPRESSED else own

    return walk(0, "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="folder to write; class folders are made inside")
    parser.add_argument("--per-class", type=int, help="most pictures of each class (default: all)")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("/usr/share/gcompris-qt/rcc"))
    arguments = parser.parse_args()
    written = 0
    for name, (archives, wanted) in CLASSES.items():
        pictures = {}
        for archive in archives.split("|"):
            path = arguments.data / f"{archive}.rcc"
            try:
                files = read_archive(path.read_bytes())
                pictures.update((own, content) for own, content in files if re.search(wanted, own))
            except (OSError, ValueError) as error:
                sys.exit(f"{path}: {error}\nhint: install gcompris-qt-data, or name its rcc folder with --data")
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        for own in sorted(pictures)[: arguments.per_class]:
            picture = Image.open(io.BytesIO(pictures[own])).convert("RGBA")
            # What is cut out stands on white.
            paper = Image.new("RGBA", picture.size, "white")
            paper.alpha_composite(picture)
            paper.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
            paper.convert("RGB").save(folder / f"{pathlib.PurePosixPath(own).stem}.png")
            written += 1
    print(f"{written} photographs in {len(CLASSES)} classes: {arguments.out}")


if __name__ == "__main__":
    main()
