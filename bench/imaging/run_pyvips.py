"""pyvips: `run_pyvips.py thumbnail webp|jpeg PICTURE`. See compare.py for the protocol."""

import os
import re
import sys
import time
from pathlib import Path

os.environ["VIPS_CONCURRENCY"] = "1"
import pyvips  # noqa: E402

EDGES = {"full": 1024, "large": 512, "medium": 256, "small": 128, "thumbnail": 64}
_, format_, picture = sys.argv[1:]
pyvips.cache_set_max(0)


def status(key):
    return int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def upload(data):
    files = {}
    for name, edge in EDGES.items():
        image = pyvips.Image.thumbnail_buffer(data, edge, height=edge, crop="centre", export_profile="srgb")
        if format_ == "webp":
            files[name] = image.webpsave_buffer(Q=80, effort=4, keep="none")
        else:
            files[name] = image.jpegsave_buffer(Q=82, keep="none", background=255)
    return files


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
