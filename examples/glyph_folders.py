#!/usr/bin/env python3
"""Draws letters and digits in many typefaces into one folder per class: OUT/base (a-z) and OUT/novel (capitals and digits).

Each picture has a random typeface, ink and paper colour, size, place and tilt. Adapters are tuned on classes of `base`;
`novel` is for testing alone. Letters that look the same in both (capital I, O, S, W, X) are left out of `novel`.

Picture k of a class depends on --seed, the class, k and the list of typefaces alone, so more pictures per class leave the
first ones as they are. The list (one file a family, by family name) stands in OUT/fonts.txt with the SHA-256 of each file and
Pillow's version: the same fonts and the same Pillow give the same pixels. With --split NAME=CHARACTERS other characters are drawn instead, into OUT/NAME.

Needs Pillow and fonts; on Debian any of the `fonts-*` packages, for the experiments of docs/experiments/NOTEBOOK.md those of
docs/experiments/typefaces.txt. Typefaces that lack a character, draw two characters
alike, have capitals for small letters, or do not open are skipped.
"""
import argparse
import hashlib
import pathlib
import random
import re
import sys

try:
    from PIL import Image, ImageDraw, ImageFont, __version__ as pillow_version
except ImportError:
    sys.exit("Pillow is missing\nhint: python3 -m pip install pillow, or apt install python3-pil")

SPLITS = {"base": "abcdefghijklmnopqrstuvwxyz", "novel": "ABCDEFGHJKLMNPQRTUVYZ0123456789"}
NO_CHARACTER = "\uf8ff\u0378"  # private use, unassigned: what a font draws for a character that it lacks
PLAIN_STYLES = ["Regular", "Roman", "Book", "Normal", "Medium"]
# Drawn twice as large as stored, so that turning and scaling smooth the edges.
OVERSAMPLING = 2


def load(path, pixels):
    # The basic layout: the other one depends on a library that not every Pillow has.
    return ImageFont.truetype(str(path), pixels, layout_engine=ImageFont.Layout.BASIC)


def has_small_letters(font):
    """False where small letters are capitals in a smaller size; such a font would show `novel` shapes in `base`."""

    def shape(character):
        mask = font.getmask(character)
        return Image.frombytes("L", mask.size, bytes(mask)).resize((24, 24), Image.Resampling.BILINEAR).tobytes()

    def difference(small):
        pairs = zip(shape(small), shape(small.upper()))
        return sum(abs(one - other) for one, other in pairs) / (255 * 24 * 24)

    # Letters whose two forms differ in ordinary typefaces: 0.23 to 0.35 there, less where both are capitals.
    return sum(map(difference, "adegqr")) / 6 > 0.22


def is_usable(path, characters):
    """Whether the font draws every character, no two alike, none sprawling, and distinct small letters."""
    try:
        font = load(path, 48)
        masks = [font.getmask(character) for character in characters + NO_CHARACTER]
        load(path, 140).getmask(characters)
        sprawls = any(max(mask.size) > 1.3 * 48 for mask in masks)
        drawn = [(mask.size, bytes(mask)) for mask in masks]
        present, missing = drawn[: len(characters)], drawn[len(characters) :]
        distinct = len(set(present)) == len(present) and set(missing).isdisjoint(present)
        return distinct and not sprawls and all(any(pixels) for _, pixels in present) and has_small_letters(font)
    except (OSError, ValueError):
        return False


def find_families(roots, exclude, limit, characters):
    """Family name -> font file, in the order of the names; the plainest style of each family."""
    files = {}
    for path in sorted(path for root in roots for path in root.rglob("*") if path.suffix.lower() in (".ttf", ".otf")):
        try:
            family, style = load(path, 16).getname()
        except (OSError, ValueError):
            continue
        if family and not exclude.search(family):
            rank = PLAIN_STYLES.index(style) if style in PLAIN_STYLES else len(PLAIN_STYLES)
            files.setdefault(family, []).append((rank, path.name, path))
    families = {}
    for family in sorted(files):
        if len(families) == limit:
            break
        path = min(files[family])[2]
        if is_usable(path, characters):
            families[family] = path
    return families


def colours(generator):
    """Paper and ink: light and dark, three times in ten the other way round."""
    paper = tuple(generator.randint(150, 255) for _ in range(3))
    ink = tuple(generator.randint(0, 110) for _ in range(3))
    return (ink, paper) if generator.random() < 0.3 else (paper, ink)


def draw(path, character, size, generator):
    """One picture of `size` × `size` pixels."""
    side = OVERSAMPLING * size
    paper, ink = colours(generator)
    font = load(path, int(generator.uniform(0.41, 0.71) * side))
    picture = Image.new("RGB", (side, side), paper)
    canvas = ImageDraw.Draw(picture)
    left, top, right, bottom = canvas.textbbox((0, 0), character, font=font)
    shift = [generator.uniform(-0.08, 0.08) * side for _ in range(2)]
    canvas.text(
        (side / 2 - (left + right) / 2 + shift[0], side / 2 - (top + bottom) / 2 + shift[1]), character, font=font, fill=ink
    )
    picture = picture.rotate(generator.uniform(-18, 18), fillcolor=paper, resample=Image.Resampling.BICUBIC)
    return picture.resize((size, size), Image.Resampling.BICUBIC)


def drawing_options(description, out_help):
    """A parser of what all drawn folders take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help=out_help)
    parser.add_argument("--per-class", type=int, default=40, help="pictures of each class (default: 40)")
    parser.add_argument("--size", type=int, default=98, help="side of a picture in pixels (default: 98)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    return parser


def main():
    parser = drawing_options(__doc__, "folder to write; base/ and novel/ are made inside")
    parser.add_argument("--families", type=int, help="take the first N typefaces only (default: all)")
    parser.add_argument("--fonts", type=pathlib.Path, nargs="+", default=[pathlib.Path("/usr/share/fonts")], metavar="DIR")
    parser.add_argument("--exclude", type=re.compile, help="typefaces not to take, as a regular expression on their names",
                        default=re.compile(r"(?i)symbol|dingbat|ding|ornament|icon|barcode|emoji|braille|phonetic|math|D050000L|Initials|Futhark|Alfa-beta|Ell(h|th)nikh|Kanji|Keyboard"))
    parser.add_argument("--split", action="append", metavar="NAME=CHARACTERS", help="characters to draw, and their folder (default: base and novel)")
    arguments = parser.parse_args()

    splits = dict(split.split("=", 1) for split in arguments.split) if arguments.split else SPLITS
    characters = "".join(splits.values())
    families = find_families(arguments.fonts, arguments.exclude, arguments.families, characters)
    if len(families) < 2:
        sys.exit("fewer than 2 usable typefaces found\nhint: install some fonts-* packages, or name a folder with --fonts")
    paths = list(families.values())
    for split, own in splits.items():
        for character in own:
            folder = arguments.out / split / character
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(arguments.per_class):
                generator = random.Random(f"{arguments.seed}/{split}/{character}/{index}")
                path = generator.choice(paths)
                draw(path, character, arguments.size, generator).save(folder / f"{index:04}.png")
    with open(arguments.out / "fonts.txt", "w", encoding="utf-8") as listing:
        listing.write(f"Pillow {pillow_version}\n")
        for family, path in families.items():
            listing.write(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {family}  {path.name}\n")
    print(f"{len(characters)} classes of {arguments.per_class} pictures in {len(families)} typefaces, seed {arguments.seed}: {arguments.out}")


if __name__ == "__main__":
    main()
