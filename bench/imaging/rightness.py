"""Compares Cameo's renditions of the fixtures with those of Pillow, LittleCMS and pillow-heif.

    rightness.py CAMEO FIXTURES

For each picture, the script prints the mean absolute difference (of 255) between the medium variant
and Pillow's result. It also prints the difference to decoys, which show typical mistakes: not turned,
profile not applied, transparent pixels on black. A picture is right if it is close to Pillow's result
and further from every decoy.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import ssim
from PIL import Image, ImageOps

EDGE = 128
# The accepted difference, due to lossy coding, subsampling and dithering.
MAX_DIFFERENCE = 4.0


def square(image):
    size = (min(EDGE, *image.size),) * 2
    if image.mode == "RGBA":
        small = ImageOps.fit(image.convert("RGBa"), size, Image.Resampling.LANCZOS)
        return small.convert("RGBA")
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def difference(one, other):
    a, b = (numpy.asarray(image.convert("RGB"), float) for image in (one, other))
    return float(abs(a - b).mean())


def opened(path):
    image = Image.open(path)
    if path.name.startswith("coded-p3"):
        # The file marks Display P3 by code points, which Pillow does not read. This profile is equivalent.
        image.info["icc_profile"] = Image.open(path.with_name("display-p3.jpg")).info["icc_profile"]
    return image


def expected(path):
    image = opened(path)
    return square(ssim.to_srgb(ImageOps.exif_transpose(image)))


def decoys(path):
    image = opened(path)
    profile = image.info.get("icc_profile")
    if image.getexif().get(0x0112, 1) != 1:
        yield "not turned", ssim.flatten(square(ssim.to_srgb(image)))
    if profile:
        upright = ImageOps.exif_transpose(image)
        upright.info.pop("icc_profile", None)
        yield "without its profile", ssim.flatten(square(ssim.to_srgb(upright)))
    if image.has_transparency_data:
        right = expected(path)
        black = Image.alpha_composite(Image.new("RGBA", right.size, "black"), right)
        yield "on black", black.convert("RGB")


def main(cameo, fixtures):
    wrong = 0
    print("\n### Mean difference of the medium variant to Pillow, LittleCMS and pillow-heif\n")
    print("| picture | difference | decoys |\n| --- | --- | --- |")
    for path in sorted(fixtures.iterdir()):
        if path.suffix in {".py", ".md"}:
            continue
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [cameo, "--pipeline", "fixture", str(path)], input=f"{folder}\n", text=True,
                check=True, stdout=subprocess.DEVNULL,
            )
            found = Image.open(Path(folder, "medium.png")).convert("RGBA")
        found = ssim.flatten(found)
        near = difference(found, ssim.flatten(expected(path)))
        far = {name: difference(found, decoy) for name, decoy in decoys(path)}
        right = near <= MAX_DIFFERENCE and all(near < distance for distance in far.values())
        wrong += not right
        others = ", ".join(f"{name} {distance:.1f}" for name, distance in far.items())
        print(f"| {path.name} | {near:.2f}{'' if right else ' **wrong**'} | {others} |")
    sys.exit(f"{wrong} pictures are wrong" if wrong else 0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
