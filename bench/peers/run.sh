#!/usr/bin/env bash
# Measures uploads to Cameo and to the services in this folder, on SeaweedFS and Redis.
#
#     bench/peers/run.sh [--picture NAME]... [--at-once N]... [--rounds N] [--flood N]
#
# NAME is 12mp.jpg, 2000.jpg or 1200.png. By default the script measures all of them with 1, 4 and 16
# uploads at once in three rounds, then a flood of 200 uploads of the first picture. It installs
# everything below .tools and bench/peers/fastify/node_modules. All processes that it starts end with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
    echo "bench-peers: $*" >&2
    exit 1
}

scripts/bench-photo.sh
scripts/servers/seaweedfs.sh install

python=.tools/bench-peers/python
requirements=bench/peers/fastapi/requirements.txt
if ! cmp -s "$requirements" "$python/installed.txt"; then
    echo "bench-peers: installing FastAPI and Pillow into $python"
    rm -rf "$python"
    python3 -m venv "$python" || fail "python3 cannot make a virtual environment (Debian: apt-get install python3-venv)"
    "$python/bin/pip" install -q --disable-pip-version-check -r "$requirements" || fail "cannot install $requirements"
    cp "$requirements" "$python/installed.txt"
fi

modules=bench/peers/fastify/node_modules
if ! cmp -s bench/peers/fastify/package-lock.json "$modules/.installed"; then
    echo "bench-peers: installing Fastify and sharp into $modules"
    (cd bench/peers/fastify && npm ci --silent --no-fund --no-audit) || fail "npm ci failed in bench/peers/fastify"
    cp bench/peers/fastify/package-lock.json "$modules/.installed"
fi
"$python/bin/python" bench/peers/pictures.py target/bench/phone-12mp.jpg target/bench/peers

# The build has no time limit; the measurements have one.
bench=$(cargo bench --locked --bench upload --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/upload-[^"]*\)".*/\1/p')
[[ -x $bench ]] || fail "the benchmark was not built"
timeout --foreground 2m "$bench" outside --seaweedfs
timeout --foreground 15m "$bench" beside "$@"
