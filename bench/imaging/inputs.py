"""Makes the input pictures of the benchmark: `inputs.py PHOTO FOLDER`.

PHOTO is a phone's JPEG of 12 megapixels; all other pictures are made from it. Existing files are kept.
"""

import io
import sys
from pathlib import Path

import pillow_heif
from PIL import Image, ImageDraw, ImageOps

photo, folder = Path(sys.argv[1]), Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
lying = Image.open(photo)
exif = lying.getexif().tobytes()
upright = ImageOps.exif_transpose(lying).convert("RGB")


def square(edge):
    return ImageOps.fit(upright, (edge, edge), Image.Resampling.LANCZOS)


def rgba():
    image = square(1200).convert("RGBA")
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse((40, 40, 1160, 1160), fill=255)
    image.putalpha(mask)
    return image


def heic(path):
    pillow_heif.from_pillow(upright).save(path, quality=60)


def avif(path):
    upright.save(path, quality=60, speed=6)


def gif(path):
    base = square(480)
    frames = []
    for step in range(40):
        frame = base.rotate(step * 2, Image.Resampling.BICUBIC)
        frames.append(frame.quantize(128))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, loop=0)


makers = {
    "phone-12mp.jpg": lambda path: path.write_bytes(photo.read_bytes()),
    "progressive-12mp.jpg": lambda path: lying.save(path, quality=90, progressive=True, exif=exif),
    "square-2000.jpg": lambda path: square(2000).save(path, quality=90),
    "rgba-1200.png": lambda path: rgba().save(path),
    "square-1500.webp": lambda path: square(1500).save(path, quality=85, method=4),
    "photo-12mp.heic": heic,
    "photo-12mp.avif": avif,
    "moving-480.gif": gif,
}
for name, make in makers.items():
    if not (folder / name).exists():
        print(f"inputs: making {name}", flush=True)
        make(folder / name)
