#!/usr/bin/env python3
"""Draws two small worlds, one folder per class: OUT/shapes (circle, star, arrow …) and OUT/textures (stripes, bricks, dots …).

Each picture has random colours, size, place and tilt; shapes are filled or outlined. Picture k of a class depends on --seed, the class and k alone:
the same Pillow gives the same pixels. Needs Pillow.
"""
import math
import random

# Says so where Pillow is missing.
from glyph_folders import OVERSAMPLING, colours, drawing_options
from PIL import Image, ImageDraw


def polygon(corners, inner=None, turn=-90.0):
    """Corners on the unit circle; with `inner` every second one lies on a circle of that radius, which makes a star."""
    count = corners * (2 if inner else 1)
    radii = [1.0, inner] * corners if inner else [1.0] * corners
    angles = [math.radians(turn + 360 * index / count) for index in range(count)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in zip(radii, angles)]


def curve(function, count=90):
    return [function(2 * math.pi * index / count) for index in range(count)]


def heart(angle):
    x = 16 * math.sin(angle) ** 3
    y = 13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle) - math.cos(4 * angle)
    return x / 17, -y / 17


def crescent():
    outer = [point for point in curve(lambda angle: (math.cos(angle), math.sin(angle))) if point[0] < 0.45]
    outer.sort(key=lambda point: math.atan2(point[1], point[0]) % (2 * math.pi))
    inner = [(0.45 + 0.85 * x, 0.85 * y) for x, y in reversed(outer)]
    return outer + [point for point in inner if point[0] < 0.45]


# Outlines within the unit circle.
SHAPES = {
    "arrow": [(-1, -0.3), (0.1, -0.3), (0.1, -0.75), (1, 0), (0.1, 0.75), (0.1, 0.3), (-1, 0.3)],
    "bolt": [(0.1, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.25, 1), (0.6, -0.25), (0.05, -0.25)],
    "circle": curve(lambda angle: (math.cos(angle), math.sin(angle))),
    "crescent": crescent(),
    "cross": [(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3), (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)],
    "drop": curve(lambda angle: (0.7 * math.sin(angle) * math.sin(angle / 2), -math.cos(angle))),
    "ellipse": curve(lambda angle: (math.cos(angle), 0.45 * math.sin(angle))),
    "flower": curve(lambda angle: ((0.7 + 0.3 * math.cos(5 * angle)) * math.cos(angle), (0.7 + 0.3 * math.cos(5 * angle)) * math.sin(angle))),
    "gear": polygon(10, 0.72),
    "heart": curve(heart),
    "hexagon": polygon(6),
    "house": [(-0.7, 0.9), (-0.7, -0.1), (0, -0.9), (0.7, -0.1), (0.7, 0.9)],
    "kite": [(0, -1), (0.6, -0.3), (0, 1), (-0.6, -0.3)],
    "rectangle": [(-1, -0.45), (1, -0.45), (1, 0.45), (-1, 0.45)],
    "square": polygon(4, turn=-45.0),
    "star": polygon(5, 0.42),
    "trapezium": [(-0.5, -0.6), (0.5, -0.6), (1, 0.6), (-1, 0.6)],
    "triangle": polygon(3),
}


def stripes(canvas, side, step, ink, generator):
    width = step * generator.uniform(0.3, 0.6)
    for start in range(0, side, step):
        canvas.rectangle((start, 0, start + width, side), fill=ink)


def lattice(canvas, side, step, ink, generator):
    width = max(2, int(step * generator.uniform(0.1, 0.25)))
    for start in range(0, side, step):
        canvas.rectangle((start, 0, start + width, side), fill=ink)
        canvas.rectangle((0, start, side, start + width), fill=ink)


def checks(canvas, side, step, ink, generator):
    for row in range(0, side // step + 1):
        for column in range(row % 2, side // step + 1, 2):
            canvas.rectangle((column * step, row * step, (column + 1) * step - 1, (row + 1) * step - 1), fill=ink)


def dots(canvas, side, step, ink, generator):
    radius = step * generator.uniform(0.2, 0.38)
    for y in range(step // 2, side, step):
        for x in range(step // 2, side, step):
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def rings(canvas, side, step, ink, generator):
    radius, width = step * generator.uniform(0.3, 0.42), max(2, step // 8)
    for y in range(step // 2, side, step):
        for x in range(step // 2, side, step):
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), outline=ink, width=width)


def bricks(canvas, side, step, ink, generator):
    width = max(2, step // 8)
    for row, y in enumerate(range(0, side, step)):
        canvas.rectangle((0, y, side, y + width), fill=ink)
        for x in range((row % 2) * step, side, 2 * step):
            canvas.rectangle((x, y, x + width, y + step), fill=ink)


def waves(canvas, side, step, ink, generator):
    height, width = step * generator.uniform(0.25, 0.45), max(2, int(step * generator.uniform(0.12, 0.3)))
    for y in range(0, side, step):
        canvas.line([(x, y + height * math.sin(x * math.pi / step)) for x in range(0, side, 3)], fill=ink, width=width)


def zigzag(canvas, side, step, ink, generator):
    width = max(2, int(step * generator.uniform(0.12, 0.3)))
    for y in range(0, side, step):
        canvas.line([(x, y + (step // 2 if index % 2 else 0)) for index, x in enumerate(range(0, side, step // 2))], fill=ink, width=width)


def scales(canvas, side, step, ink, generator):
    width = max(2, step // 8)
    for row, y in enumerate(range(0, side, step // 2)):
        for x in range(-(row % 2) * step // 2, side, step):
            canvas.arc((x, y, x + step, y + step), 0, 180, fill=ink, width=width)


def hatch(canvas, side, step, ink, generator):
    for _ in range(side * side // (step * step) * 3):
        x, y, length = generator.uniform(0, side), generator.uniform(0, side), step * generator.uniform(0.6, 1.2)
        canvas.line((x, y, x + length, y), fill=ink, width=max(2, step // 10))


def speckles(canvas, side, step, ink, generator):
    for _ in range(side * side // (step * step) * 6):
        x, y, radius = generator.uniform(0, side), generator.uniform(0, side), step * generator.uniform(0.04, 0.22)
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def triangles(canvas, side, step, ink, generator):
    for row, y in enumerate(range(0, side, step)):
        for x in range(-(row % 2) * step // 2, side, step):
            canvas.polygon(((x, y + step), (x + step, y + step), (x + step // 2, y)), fill=ink)


def spiral(canvas, side, step, ink, generator):
    middle = side / 2
    points = [(middle + step * turn / (2 * math.pi) * math.cos(turn), middle + step * turn / (2 * math.pi) * math.sin(turn))
              for turn in (index / 20 for index in range(int(20 * math.pi * side / step)))]
    canvas.line(points, fill=ink, width=max(2, int(step * generator.uniform(0.2, 0.5))))


def rays(canvas, side, step, ink, generator):
    middle, count = side / 2, generator.randint(9, 16)
    for index in range(count):
        ends = [2 * math.pi * (index + share) / count for share in (0, 0.5)]
        canvas.polygon([(middle, middle), *((middle + side * math.cos(end), middle + side * math.sin(end)) for end in ends)], fill=ink)


TEXTURES = {function.__name__: function for function in (
    bricks, checks, dots, hatch, lattice, rays, rings, scales, speckles, spiral, stripes, triangles, waves, zigzag)}


def shape(name, size, generator):
    side = OVERSAMPLING * size
    paper, ink = colours(generator)
    picture = Image.new("RGB", (side, side), paper)
    canvas = ImageDraw.Draw(picture)
    radius, turn = generator.uniform(0.25, 0.4) * side, math.radians(generator.uniform(-30, 30))
    middle = [side / 2 + generator.uniform(-0.1, 0.1) * side for _ in range(2)]
    squeeze = generator.uniform(0.85, 1.15)
    points = []
    for x, y in SHAPES[name]:
        x = x * squeeze
        points.append((middle[0] + radius * (x * math.cos(turn) - y * math.sin(turn)), middle[1] + radius * (x * math.sin(turn) + y * math.cos(turn))))
    if generator.random() < 0.5:
        canvas.polygon(points, fill=ink)
    else:
        canvas.line([*points, *points[:2]], fill=ink, width=max(2, int(generator.uniform(0.02, 0.05) * side)), joint="curve")
    return picture.resize((size, size), Image.Resampling.BICUBIC)


def texture(name, size, generator):
    # Twice the side again, for the corners that turning would leave empty.
    side = 2 * OVERSAMPLING * size
    paper, ink = colours(generator)
    picture = Image.new("RGB", (side, side), paper)
    TEXTURES[name](ImageDraw.Draw(picture), side, int(generator.uniform(0.1, 0.22) * side / 2), ink, generator)
    picture = picture.rotate(generator.uniform(-30, 30), resample=Image.Resampling.BICUBIC)
    shift = [int(side / 4 + generator.uniform(-0.04, 0.04) * side) for _ in range(2)]
    picture = picture.crop((shift[0], shift[1], shift[0] + side // 2, shift[1] + side // 2))
    return picture.resize((size, size), Image.Resampling.BICUBIC)


def main():
    parser = drawing_options(__doc__, "folder to write; shapes/ and textures/ are made inside")
    arguments = parser.parse_args()
    for world, classes, draw in (("shapes", SHAPES, shape), ("textures", TEXTURES, texture)):
        for name in classes:
            folder = arguments.out / world / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(arguments.per_class):
                generator = random.Random(f"{arguments.seed}/{world}/{name}/{index}")
                draw(name, arguments.size, generator).save(folder / f"{index:04}.png")
    print(f"{len(SHAPES)} shapes and {len(TEXTURES)} textures, {arguments.per_class} pictures each, seed {arguments.seed}: {arguments.out}")


if __name__ == "__main__":
    main()
