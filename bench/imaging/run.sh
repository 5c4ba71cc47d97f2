#!/usr/bin/env bash
# Compares imaging with sharp, Pillow and pyvips: first the pictures, then time and memory.
#
#     bench/imaging/run.sh [--photo PHOTO] [--rounds N] [--only NAME]
#
# Installs everything below .tools. Needs node, npm and python3. PHOTO is a phone's JPEG of 12
# megapixels; the default is the photo that scripts/bench-photo.sh makes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

photo=
if [[ ${1:-} == --photo ]]; then
    photo=$2
    shift 2
fi
if [[ -z $photo ]]; then
    scripts/bench-photo.sh
    photo=target/bench/phone-12mp.jpg
fi

venv=$PWD/.tools/bench-imaging
if [[ ! -x $venv/bin/python ]]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check \
        Pillow==13.0.0 pillow-heif==1.8.1 numpy pyvips pyvips-binary==8.18.*
fi
[[ -d bench/imaging/node_modules ]] || (cd bench/imaging && npm install --silent --no-fund --no-audit)

cameo=$(cargo bench --locked -p cameo-imaging --bench imaging --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/imaging-[^"]*\)".*/\1/p')
inputs=target/bench/imaging-$(sha256sum "$photo" | cut -c1-8)
"$venv/bin/python" bench/imaging/inputs.py "$photo" "$inputs"
"$venv/bin/python" bench/imaging/rightness.py "$cameo" tests/fixtures
"$venv/bin/python" bench/imaging/crops.py "$cameo"
"$venv/bin/python" bench/imaging/compare.py "$cameo" "$inputs" "$@"
