"""Compares crops of every kind of picture with the crops of Pillow: crops.py CAMEO [CROPS] [SEED].

The pictures are noise of several scales, so that all parts differ. A crop is right if it is close to
Pillow's crop of the same part, and closer to it than to Pillow's crop moved by one output pixel in any
direction. `CROPS` is the number of crops of each picture.
"""

import io
import itertools
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import pillow_heif
from PIL import ExifTags, Image, ImageOps

pillow_heif.register_heif_opener()
# The accepted difference, which another chroma filter and lossy coding cause.
MAX_DIFFERENCE = 8.0


def noise(width, height, finest, channels, seed):
    random_numbers = numpy.random.default_rng(seed)
    image = numpy.zeros((height, width, channels))
    for grain in (finest, finest * 2, finest * 4, finest * 8):
        knots = random_numbers.uniform(-48, 48, (height // grain + 2, width // grain + 2, channels))
        for channel in range(channels):
            layer = Image.fromarray(knots[:, :, channel].astype("float32"))
            layer = layer.resize((layer.width * grain, layer.height * grain), Image.Resampling.BILINEAR)
            image[:, :, channel] += numpy.asarray(layer)[:height, :width]
    return (image + 128).clip(0, 255)


def picture(width, height, seed):
    light, colors = noise(width, height, 3, 1, seed), noise(width, height, 9, 3, seed + 1)
    return Image.fromarray((light + (colors - 128) / 2).clip(0, 255).astype("uint8"))


def with_alpha(image, seed):
    alpha = noise(*image.size, 4, 1, seed)[:, :, 0].astype("uint8")
    image = image.convert("RGBA")
    image.putalpha(Image.fromarray(alpha))
    return image


def kinds():
    """The kinds of pictures: name, mode, format, and options for `save` of Pillow or pillow-heif."""
    codings = {"baseline": {}, "restarts": {"restart_marker_blocks": 3}, "progressive": {"progressive": True}}
    for (coding, options), mode, sampling in itertools.product(
        codings.items(), ("L", "RGB", "CMYK"), ("4:4:4", "4:2:2", "4:2:0")
    ):
        yield f"{coding} {mode} {sampling}", mode, "JPEG", {"quality": 95, "subsampling": sampling, **options}
    yield "rgb", "RGB", "JPEG", {"quality": 95, "keep_rgb": True}
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16"):
        yield mode, mode, "PNG", {}
    for mode, lossless in itertools.product(("RGB", "RGBA"), (False, True)):
        yield f"{mode} {'lossless' if lossless else 'lossy'}", mode, "WEBP", {"quality": 95, "lossless": lossless}
    yield "palette", "P", "GIF", {}
    for mode in ("RGB", "RGBA"):
        yield mode, mode, "HEIF", {"quality": 95}
        for sampling in ("4:2:0", "4:2:2", "4:4:4", "4:0:0"):
            yield f"{mode} {sampling}", mode, "AVIF", {"quality": 95, "subsampling": sampling, "speed": 8}


def converted(image, mode, seed):
    if mode in ("LA", "PA", "RGBA"):
        image = with_alpha(image, seed)
    match mode:
        case "CMYK":
            inks = image.convert("CMYK").split()
            key = Image.fromarray((noise(*image.size, 5, 1, seed)[:, :, 0] / 3).astype("uint8"))
            return Image.merge("CMYK", [*inks[:3], key])
        case "I;16":
            gray = numpy.asarray(image.convert("L")).astype("uint16") * 257
            return Image.fromarray(gray)
        case "P":
            return image.quantize(200)
        case "PA":
            return image.quantize(100)
    return image.convert(mode)


def files(sizes):
    """Every kind of picture in every orientation that its format supports."""
    for number, (name, mode, form, options) in enumerate(kinds()):
        for orientation in range(1, 9) if form != "GIF" else [1]:
            size = sizes[(number + orientation) % len(sizes)]
            image = converted(picture(*size, number * 100 + orientation), mode, number)
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = orientation
            if form != "GIF":
                options = {**options, "exif": exif.tobytes()}
            file = io.BytesIO()
            image.save(file, form, **options)
            yield f"{form} {name} {orientation} {size[0]} × {size[1]}", file.getvalue()


def decoded(data):
    """The upright picture in straight RGBA, decoded by Pillow."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode == "I;16":
        image = Image.fromarray((numpy.asarray(image) / 257).round().astype("uint8"))
    return image.convert("RGBA")


def values(image):
    return numpy.asarray(image.convert("RGBA").convert("RGBa"), float)


def difference(one, other, right, down):
    height, width = one.shape[:2]
    a = one[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    b = other[max(0, down) : height - max(0, -down), max(0, right) : width - max(0, -right)]
    return abs(a - b).sum() / max(1, a.shape[0] * a.shape[1] * 3)


def crops(size, count, numbers):
    width, height = size
    for index in range(count):
        edge = min(size) if index % 4 == 0 else numbers.randint(max(16, min(size) // 4), min(size))
        x, y = (numbers.choice((0, length - edge, numbers.randint(0, length - edge))) for length in size)
        yield x, y, edge, edge if index % 3 == 0 else numbers.randint(12, edge)


def main(cameo, count=4, seed=1):
    numbers = random.Random(seed)
    sizes = [(203, 151), (160, 240), (97, 301), (256, 256), (331, 222)]
    checked, wrong = 0, []
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files(sizes):
            path = Path(folder, "picture")
            path.write_bytes(data)
            expected = decoded(data)
            wanted = list(crops(expected.size, count, numbers))
            for number in range(count):
                Path(folder, str(number)).mkdir(exist_ok=True)
            lines = [f"{folder}/{n}\t{x},{y},{e},{e}\t{px}\n" for n, (x, y, e, px) in enumerate(wanted)]
            done = subprocess.run(
                [cameo, "--pipeline", "fixture", str(path)], input="".join(lines), text=True,
                capture_output=True,
            )
            if done.returncode:
                wrong.append(f"{name}: {done.stderr.strip().splitlines()[:2]}")
                checked += count
                continue
            for number, (x, y, edge, px) in enumerate(wanted):
                found = values(Image.open(Path(folder, str(number), "medium.png")))
                part = expected.crop((x, y, x + edge, y + edge)).convert("RGBa")
                part = numpy.asarray(part.resize((px, px), Image.Resampling.LANCZOS), float)
                checked += 1
                near = difference(found, part, 0, 0) if found.shape == part.shape else 999
                moved = min(difference(found, part, *by) for by in ((1, 0), (-1, 0), (0, 1), (0, -1)))
                if near > MAX_DIFFERENCE or near * 1.3 > moved:
                    wrong.append(f"{name}: {edge} px at {x},{y} in {px} px: {near:.2f}, moved {moved:.2f}")
    print(f"\n{checked} crops compared with Pillow's, {len(wrong)} wrong")
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
