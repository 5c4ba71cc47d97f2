"""Makes the pictures for the uploads: `pictures.py PHOTO FOLDER`. Existing files are kept.

PHOTO is a phone's JPEG of 12 megapixels (scripts/bench-photo.sh); the others are made from it.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

photo, folder = Path(sys.argv[1]), Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)


def square(edge):
    upright = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
    return ImageOps.fit(upright, (edge, edge), Image.Resampling.LANCZOS)


def rgba():
    image = square(1200).convert("RGBA")
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse((40, 40, 1160, 1160), fill=255)
    image.putalpha(mask)
    return image


makers = {
    "12mp.jpg": lambda path: path.write_bytes(photo.read_bytes()),
    "2000.jpg": lambda path: square(2000).save(path, quality=90),
    "1200.png": lambda path: rgba().save(path),
}
for name, make in makers.items():
    if not (folder / name).exists():
        make(folder / name)
