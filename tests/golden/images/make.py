"""Makes the input pictures of this folder and `expected.safetensors`, what Pillow 13.0.0 (with numpy 2.4.6) makes of them.

    python make.py        # writes beside itself; the results are committed and not edited

Tensors in `expected.safetensors`:
    decode/<file>                            [H, W, 3] u8   upright, on white, RGB
    resize/<file>/<filter>/<W>x<H>           [H, W, 3] u8   Image.resize of the decoded picture
    clip/<file>/<shortest edge>/<crop side>  [3, C, C] f32  resize, centre crop, rescale, normalise as Hugging Face does
"""

import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageOps
from safetensors.numpy import save_file

assert PIL.__version__ == "13.0.0", PIL.__version__
FOLDER = Path(__file__).parent
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
expected = {}


def scene(width, height, seed=0):
    """A sky, a hill, a house and some film grain."""
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    sky = np.stack([90 + 120 * y, 140 + 80 * y, 235 - 30 * y], -1)
    ground = np.stack([60 + 50 * x, 120 + 60 * np.sin(9 * x), 40 + 30 * y], -1)
    pixels = np.where((y > 0.65 + 0.12 * np.sin(5 * x + 1))[..., None], ground, sky)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    at = lambda *points: [(px * width, py * height) for px, py in points]
    draw.rectangle(at((0.3, 0.45), (0.6, 0.85)), fill=(225, 215, 190))
    draw.polygon(at((0.25, 0.45), (0.45, 0.2), (0.65, 0.45)), fill=(170, 40, 30))
    draw.rectangle(at((0.4, 0.6), (0.48, 0.85)), fill=(20, 20, 25))
    draw.ellipse(at((0.78, 0.08), (0.93, 0.28)), fill=(255, 240, 120))
    grain = np.random.default_rng(seed).normal(0, 4, (height, width, 3))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def on_white(image):
    image = ImageOps.exif_transpose(image)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image.convert("RGB"), mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def keep(name, encoded, decoded=None):
    """Stores an input and what it decodes to: Pillow's answer where none is given."""
    (FOLDER / name).write_bytes(encoded)
    if decoded is None:
        decoded = on_white(Image.open(io.BytesIO(encoded)))
    expected[f"decode/{name}"] = np.ascontiguousarray(np.asarray(decoded, np.uint8))


def encoded(image, **options):
    stream = io.BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


def png(samples, colour_type, depth=8, interlaced=False, extra=()):
    """A PNG of `samples` [H, W] or [H, W, C]; Pillow writes neither 16-bit colour nor interlacing."""
    height, width = samples.shape[:2]

    def rows(part):
        packed = part.astype(">u2" if depth == 16 else np.uint8)
        if packed.size == 0:
            return b""
        return b"".join(b"\0" + (np.packbits(row).tobytes() if depth == 1 else row.tobytes()) for row in packed)

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in passes] if interlaced else [samples]
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, int(interlaced))
    body = zlib.compress(b"".join(map(rows, parts)), 9)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*item) for item in chunks)


def tiff(samples, sample_format):
    """An uncompressed little-endian RGB TIFF of 16-bit integers or 32-bit floats, which Pillow does not write."""
    height, width = samples.shape[:2]
    data = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    bits = 8 * samples.dtype.itemsize
    count, first = 11, 8 + len(data) + 12
    short, long = 3, 4
    tags = [
        (256, short, 1, width), (257, short, 1, height), (258, short, 3, 8 + len(data)), (259, short, 1, 1),
        (262, short, 1, 2), (273, long, 1, 8), (277, short, 1, 3), (278, short, 1, height),
        (279, long, 1, len(data)), (284, short, 1, 1), (339, short, 3, 8 + len(data) + 6),
    ]
    extra = struct.pack("<6H", bits, bits, bits, *[sample_format] * 3)
    directory = struct.pack("<H", count) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II\x2a\0" + struct.pack("<I", first) + data + extra + directory


def jpegs(picture):
    keep("rgb.jpg", encoded(picture, format="JPEG", quality=90, subsampling=0))
    keep("rgb-420.jpg", encoded(picture, format="JPEG", quality=90, subsampling=2))
    keep("rgb-422.jpg", encoded(picture, format="JPEG", quality=90, subsampling=1, restart_marker_blocks=3))
    keep("odd-420.jpg", encoded(scene(37, 29, 6), format="JPEG", quality=90, subsampling=2))
    keep("odd-progressive-420.jpg", encoded(scene(37, 29, 6), format="JPEG", quality=90, progressive=True, subsampling=2))
    keep("not-ycbcr.jpg", encoded(picture, format="JPEG", quality=90, keep_rgb=True))
    keep("progressive.jpg", encoded(picture, format="JPEG", quality=85, progressive=True, subsampling=2))
    keep("grey.jpg", encoded(picture.convert("L"), format="JPEG", quality=90))
    cmyk = np.array(picture.convert("CMYK"))
    cmyk[..., 3] = np.linspace(0, 120, cmyk.shape[1])
    cmyk_jpeg = encoded(Image.fromarray(cmyk, "CMYK"), format="JPEG", quality=95, subsampling=0)
    keep("cmyk.jpg", cmyk_jpeg)
    # YCCK: Pillow stores 255 - channel and an Adobe marker that says "as it is"; say "YCCK" instead and give it that.
    ycc = np.asarray(Image.fromarray(cmyk[..., :3], "RGB").convert("YCbCr"))
    ycck = np.concatenate([255 - ycc, cmyk[..., 3:]], -1)
    ycck_jpeg = bytearray(encoded(Image.fromarray(ycck, "CMYK"), format="JPEG", quality=95, subsampling=0))
    transform = ycck_jpeg.index(b"Adobe") + 11
    assert ycck_jpeg[transform] == 0
    ycck_jpeg[transform] = 2
    keep("ycck.jpg", bytes(ycck_jpeg))
    small = picture.resize((40, 24))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        keep(f"orientation-{orientation}.jpg", encoded(small, format="JPEG", quality=92, subsampling=0, exif=exif))


def pngs(picture):
    rgb = np.asarray(picture)
    grey = np.asarray(picture.convert("L"))
    alpha = np.broadcast_to(np.linspace(0, 255, rgb.shape[1]).round().astype(np.uint8), grey.shape)
    noise = np.random.default_rng(1)
    low = lambda shape: noise.integers(0, 256, shape, np.uint16)
    keep("rgb.png", encoded(picture, format="PNG"))
    keep("grey.png", encoded(picture.convert("L"), format="PNG"))
    keep("grey-alpha.png", encoded(Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]), format="PNG"))
    rgba = np.dstack([rgb, alpha])
    keep("rgba.png", encoded(Image.fromarray(rgba), format="PNG"))
    keep("rgb16.png", png(rgb.astype(np.uint16) << 8 | low(rgb.shape), 2, 16))
    keep("rgba16.png", png(rgba.astype(np.uint16) << 8 | low(rgba.shape), 6, 16))
    # Pillow clips 16-bit grey at 255 instead of scaling it, hence the high byte is the reference here.
    keep("grey16.png", png(grey.astype(np.uint16) << 8 | low(grey.shape), 0, 16), np.dstack([grey] * 3))
    keep("interlaced.png", png(rgb, 2, interlaced=True))
    keep("bilevel.png", encoded(picture.convert("1"), format="PNG"))
    palette = picture.quantize(32)
    keep("palette.png", encoded(palette, format="PNG"))
    keep("palette-transparent.png", encoded(palette, format="PNG", transparency=bytes([0, 100, 200] + [255] * 29)))
    exif = Image.Exif()
    exif[0x0112] = 6
    keep("orientation-6.png", encoded(picture, format="PNG", exif=exif))


def others(picture):
    rgb = np.asarray(picture)
    rgba = picture.copy()
    rgba.putalpha(Image.linear_gradient("L").resize(picture.size))
    keep("lossy.webp", encoded(picture, format="WEBP", quality=90))
    keep("lossless.webp", encoded(picture, format="WEBP", lossless=True))
    keep("lossy-alpha.webp", encoded(rgba, format="WEBP", quality=90))
    keep("lossless-alpha.webp", encoded(rgba, format="WEBP", lossless=True, exact=True))
    frames = [picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), picture.rotate(180)]
    animation = dict(save_all=True, append_images=frames[1:], duration=80)
    keep("animated.webp", encoded(frames[0], format="WEBP", lossless=True, **animation))
    keep("animated.gif", encoded(frames[0].quantize(64), format="GIF", save_all=True, append_images=[f.quantize(64) for f in frames[1:]], duration=80))
    keep("transparent.gif", encoded(picture.quantize(32), format="GIF", transparency=3))
    keep("rgb.bmp", encoded(picture, format="BMP"))
    keep("palette.bmp", encoded(picture.quantize(16), format="BMP"))
    keep("rgb.tiff", encoded(picture, format="TIFF", compression="tiff_lzw"))
    keep("grey.tiff", encoded(picture.convert("L"), format="TIFF", compression="tiff_adobe_deflate"))
    keep("bilevel.tiff", encoded(picture.convert("1"), format="TIFF"))
    keep("cmyk.tiff", encoded(picture.convert("CMYK"), format="TIFF"))
    sixteen = rgb.astype(np.uint16) << 8 | np.random.default_rng(2).integers(0, 256, rgb.shape, np.uint16)
    keep("rgb16.tiff", tiff(sixteen, 1))
    # Pillow reads no floating-point colour; levels are the nearest of 0..1 times 255.
    keep("float.tiff", tiff((rgb / np.float32(255)).astype(np.float32), 3), rgb)


def resizes():
    hard = np.random.default_rng(3).integers(0, 2, (40, 56, 3)).astype(np.uint8) * 255
    keep("hard-edges.png", encoded(Image.fromarray(hard), format="PNG"))
    keep("tall.png", encoded(scene(37, 101, 4), format="PNG"))
    keep("strip.png", encoded(scene(300, 3, 5), format="PNG"))
    keep("pixel.png", encoded(Image.new("RGB", (1, 1), (200, 30, 90)), format="PNG"))
    names = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
    every = [Image.Resampling[name.upper()] for name in names]
    bicubic = [Image.Resampling.BICUBIC]
    cases = [
        ("rgb.png", every, (45, 31)), ("rgb.png", every, (131, 40)), ("rgb.png", bicubic, (98, 98)),
        ("rgb.png", bicubic, (126, 126)), ("rgb.png", bicubic, (48, 36)), ("rgb.png", bicubic, (5, 3)),
        ("rgb.png", bicubic, (80, 200)), ("rgb.png", bicubic, (64, 48)), ("hard-edges.png", every, (41, 23)),
        ("hard-edges.png", bicubic, (97, 30)), ("hard-edges.png", bicubic, (23, 87)), ("tall.png", bicubic, (56, 56)),
        ("strip.png", bicubic, (56, 56)), ("strip.png", every, (7, 20)), ("pixel.png", every, (14, 14)),
    ]
    for name, filters, size in cases:
        image = Image.fromarray(expected[f"decode/{name}"])
        for resample in filters:
            key = f"resize/{name}/{resample.name.lower()}/{size[0]}x{size[1]}"
            expected[key] = np.asarray(image.resize(size, resample))


def clip_pixels(image, edge, crop):
    """Shortest edge, centre crop with zero padding, rescale and normalise, with the arithmetic of CLIPImageProcessor."""
    width, height = image.size
    short, long = sorted((width, height))
    scaled = int(edge * long / short)
    pixels = np.asarray(image.resize((edge, scaled) if width <= height else (scaled, edge), Image.Resampling.BICUBIC))
    height, width = pixels.shape[:2]
    top, left = (height - crop) // 2, (width - crop) // 2
    padded = np.zeros((max(crop, height), max(crop, width), 3), np.uint8)
    top_pad, left_pad = math.ceil((padded.shape[0] - height) / 2), math.ceil((padded.shape[1] - width) / 2)
    padded[top_pad : top_pad + height, left_pad : left_pad + width] = pixels
    top, left = top + top_pad, left + left_pad
    pixels = padded[max(0, top) : top + crop, max(0, left) : left + crop]
    values = (pixels.astype(np.float64) * (1 / 255)).astype(np.float32)
    return np.ascontiguousarray(((values - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1))


def clips():
    for name, edge, crop in [
        ("rgb.png", 56, 56), ("rgb.png", 57, 48), ("tall.png", 56, 56), ("tall.png", 30, 41), ("tall.png", 31, 36),
        ("strip.png", 9, 14), ("pixel.png", 28, 28), ("pixel.png", 5, 12),
    ]:
        image = Image.fromarray(expected[f"decode/{name}"])
        expected[f"clip/{name}/{edge}/{crop}"] = clip_pixels(image, edge, crop)


picture = scene(64, 48)
jpegs(picture)
pngs(picture)
others(picture)
resizes()
clips()
# A TIFF with a palette is refused, hence it has no reference.
(FOLDER / "palette-refused.tiff").write_bytes(encoded(picture.quantize(16), format="TIFF"))
save_file(expected, FOLDER / "expected.safetensors", {"pillow": PIL.__version__})
(FOLDER / "expected.safetensors").chmod(0o644)
