"""Compares Cameo, sharp, Pillow and pyvips on the same pictures, with the same sizes and qualities.

    compare.py CAMEO FOLDER [--rounds N] [--only NAME]

CAMEO is the program that `cargo bench -p cameo-imaging --bench imaging --no-run` builds, and FOLDER has the pictures of inputs.py.

Protocol: each library runs in a process that reads a line, processes its picture once on one thread,
and prints three figures: CPU time in ms (user and system), peak memory in MB above the memory before
the first picture, and output in kB. If the line names a folder, the files are written there. The
rounds of all processes are interleaved; the figures are medians.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import ssim

HERE = Path(__file__).parent
SIZES = {"full": 1024, "large": 512, "medium": 256, "small": 128, "thumbnail": 64}


class Pipeline:
    def __init__(self, name, command):
        self.name = name
        self.cpu, self.peak, self.size = [], 0.0, 0.0
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL, cwd=HERE,
        )

    def round(self, folder=""):
        try:
            self.process.stdin.write(f"{folder}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return False
        cpu, self.peak, self.size = map(float, line.split())
        self.cpu.append(cpu)
        return True

    def finish(self):
        self.process.stdin.close()
        self.process.wait()


def pipelines(cameo, picture, format_):
    python, node = sys.executable, ["node", str(HERE / "run_sharp.mjs")]
    pillow, pyvips = [python, str(HERE / "run_pillow.py")], [python, str(HERE / "run_pyvips.py")]
    return [
        ("cameo", [cameo, "--pipeline", f"cameo-{format_}", picture]),
        ("sharp, shared decode", [*node, "shared", format_, picture]),
        ("sharp, clone()", [*node, "clone", format_, picture]),
        ("Pillow, common use", [*pillow, "common", format_, picture]),
        ("Pillow, optimised", [*pillow, "best", format_, picture]),
        ("pyvips", [*pyvips, "thumbnail", format_, picture]),
    ]


def measure(cameo, picture, format_, rounds, reference):
    rows = []
    running = [Pipeline(*pipeline) for pipeline in pipelines(cameo, str(picture), format_)]
    for pipeline in running:
        with tempfile.TemporaryDirectory() as folder:
            supported = pipeline.round(folder)
            quality = ssim.of_folder(Path(folder), format_, SIZES, reference) if supported else 0.0
        pipeline.cpu.clear()
        rows.append((pipeline, supported, quality))
    for _ in range(rounds):
        for pipeline, supported, _ in rows:
            if supported:
                pipeline.round()
    for pipeline in running:
        pipeline.finish()
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cameo")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    for picture in sorted(options.folder.resolve().iterdir()):
        if options.only not in picture.name:
            continue
        reference = ssim.reference(picture, SIZES)
        for format_ in ("webp", "jpeg"):
            rows = measure(options.cameo, picture, format_, options.rounds, reference)
            print(f"\n### {picture.name}, {format_}\n")
            print("| | CPU ms | ratio of Cameo | peak MB | output kB | SSIM |")
            print("| --- | --- | --- | --- | --- | --- |")
            ours = statistics.median(rows[0][0].cpu)
            for pipeline, supported, quality in rows:
                if not supported:
                    print(f"| {pipeline.name} | not supported | | | | |")
                    continue
                cpu = statistics.median(pipeline.cpu)
                print(
                    f"| {pipeline.name} | {cpu:.0f} | {ours / cpu:.2f} | {pipeline.peak:.0f} "
                    f"| {pipeline.size:.0f} | {quality:.4f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
