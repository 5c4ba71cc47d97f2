"""Structural similarity (Wang et al. 2004) to the result of a full decode and one Lanczos step."""

import io

import numpy
import pillow_heif
from PIL import Image, ImageCms, ImageOps

pillow_heif.register_heif_opener()


def to_srgb(image):
    """Converts a picture to sRGB with LittleCMS, if it has a profile."""
    profile = image.info.get("icc_profile")
    alpha = image.has_transparency_data
    if not profile:
        return image.convert("RGBA" if alpha else "RGB")
    target = ImageCms.createProfile("sRGB")
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mask = image.convert("RGBA").getchannel("A") if alpha else None
    if alpha:
        image = image.convert("L" if image.mode == "LA" else "RGB")
    image = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    if mask:
        image.putalpha(mask)
    return image


def flatten(image):
    if image.mode != "RGBA":
        return image.convert("RGB")
    under = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(under, image).convert("RGB")


def reference(picture, sizes):
    image = to_srgb(ImageOps.exif_transpose(Image.open(picture)))
    if image.mode == "RGBA":
        image = image.convert("RGBa")
    fitted = {}
    for name, edge in sizes.items():
        small = ImageOps.fit(image, (min(edge, *image.size),) * 2, Image.Resampling.LANCZOS)
        fitted[name] = flatten(small.convert("RGBA") if small.mode == "RGBa" else small)
    return fitted


def blur(plane):
    """Applies a Gaussian of 11 samples and a deviation of 1.5 in both directions."""
    offsets = numpy.arange(11) - 5
    weights = numpy.exp(-(offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    for axis in (0, 1):
        plane = numpy.apply_along_axis(numpy.convolve, axis, plane, weights, "valid")
    return plane


def ssim(one, other):
    a, b = (numpy.asarray(image.convert("L"), float) for image in (one, other))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = blur(a), blur(b)
    var_a = blur(a * a) - mean_a**2
    var_b = blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float((top / bottom).mean())


def of_folder(folder, format_, sizes, expected):
    """The mean similarity over all sizes."""
    found = []
    for name in sizes:
        image = Image.open(folder / f"{name}.{format_}")
        image = flatten(image)
        if image.size != expected[name].size:  # some libraries enlarge
            image = image.resize(expected[name].size, Image.Resampling.LANCZOS)
        found.append(ssim(image, expected[name]))
    return sum(found) / len(found)
