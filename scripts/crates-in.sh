#!/usr/bin/env bash
# Prints the crates that a program was built from, one to a line, as `cargo auditable` wrote them into
# it. Fails if the program has no such list.
#
#     scripts/crates-in.sh target/release/cameo
#
# The list is JSON, compressed with zlib, in the section .dep-v0. Needs objcopy and python3.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
objcopy --dump-section ".dep-v0=$folder/list" "$1" "$folder/copy" 2>/dev/null || true
if [[ ! -s $folder/list ]]; then
    echo "$1 has no list of its crates; build it with 'make release'" >&2
    exit 1
fi
python3 - "$folder/list" <<'PYTHON'
import json
import sys
import zlib

with open(sys.argv[1], "rb") as file:
    crates = json.loads(zlib.decompress(file.read()))["packages"]
for crate in crates:
    if crate.get("kind", "runtime") == "runtime":
        print(crate["name"], crate["version"])
PYTHON
