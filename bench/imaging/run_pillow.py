"""Pillow: `run_pillow.py common|best webp|jpeg PICTURE`. See compare.py for the protocol."""

import io
import re
import sys
import time
from pathlib import Path

from PIL import Image, ImageOps

if sys.argv[3].endswith(".heic"):
    import pillow_heif

    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.register_heif_opener()

EDGES = {"full": 1024, "large": 512, "medium": 256, "small": 128, "thumbnail": 64}
form, format_, picture = sys.argv[1:]


def status(key):
    return int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def encode(image):
    out = io.BytesIO()
    if format_ == "webp":
        image.save(out, "WEBP", quality=80, method=4)
    else:
        image.convert("RGB").save(out, "JPEG", quality=82)
    return out.getvalue()


def common(data):
    """The common use: makes every size from the full picture."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return {
        name: encode(ImageOps.fit(image, (edge, edge), Image.Resampling.LANCZOS))
        for name, edge in EDGES.items()
    }


def best(data):
    """Optimised use: scaled decoding if available, and each size made from the previous one."""
    image = Image.open(io.BytesIO(data))
    edge = EDGES["full"]
    image.draft("RGB", (edge, edge))
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    exif = image.getexif()
    image = ImageOps.fit(image, (edge, edge), Image.Resampling.LANCZOS)
    image.info["exif"] = exif.tobytes()
    image = ImageOps.exif_transpose(image)
    files = {}
    for name, edge in EDGES.items():
        if image.width > edge:
            image = image.resize((edge, edge), Image.Resampling.LANCZOS)
        files[name] = encode(image)
    return files


upload = {"common": common, "best": best}[form]
data = Path(picture).read_bytes()
idle = status("VmRSS")
for line in sys.stdin:
    before = time.process_time()
    files = upload(data)
    cpu = time.process_time() - before
    for name, file in files.items():
        if line.strip():
            Path(line.strip(), f"{name}.{format_}").write_bytes(file)
    size = sum(map(len, files.values()))
    print(cpu * 1000, (status("VmHWM") - idle) / 1024, size / 1024, flush=True)
