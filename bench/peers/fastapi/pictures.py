"""Makes all sizes of an opened picture in WebP: upright, square, never enlarged."""

import io

from PIL import Image, ImageOps

EDGES = {"full": 1024, "large": 512, "medium": 256, "small": 128, "thumbnail": 64}


def common(image: Image.Image) -> dict[str, bytes]:
    """The common use: makes every size from the full picture."""
    image = ImageOps.exif_transpose(image)
    image = with_or_without_alpha(image)
    most = min(image.size)
    return {
        name: encode(ImageOps.fit(image, (min(edge, most),) * 2, Image.Resampling.LANCZOS))
        for name, edge in EDGES.items()
    }


def best(image: Image.Image) -> dict[str, bytes]:
    """Optimised use: scaled decoding if available, rotation after resizing, each size made from the
    previous one."""
    edge = min(EDGES["full"], *image.size)
    exif = image.getexif()
    image.draft("RGB", (edge, edge))
    image = with_or_without_alpha(image)
    image = ImageOps.fit(image, (edge, edge), Image.Resampling.LANCZOS)
    image.info["exif"] = exif.tobytes()
    image = ImageOps.exif_transpose(image)
    files = {}
    for name, edge in EDGES.items():
        if image.width > edge:
            image = image.resize((edge, edge), Image.Resampling.LANCZOS)
        files[name] = encode(image)
    return files


def with_or_without_alpha(image: Image.Image) -> Image.Image:
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def encode(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "WEBP", quality=80, method=4, exif=b"")
    return out.getvalue()
