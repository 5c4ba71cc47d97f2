#!/usr/bin/env bash
# Tests the running service against its OpenAPI document with Schemathesis; see api-test/run.py, which
# gets the arguments. Installs a fixed version of Schemathesis below .tools. Needs python3 with venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=4.32.5

venv=.tools/schemathesis-$version
if [[ ! -f $venv/installed ]]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check --no-input "schemathesis==$version"
    touch "$venv/installed"
fi
exec "$venv/bin/python" scripts/api-test/run.py target/debug/cameo "$@"
