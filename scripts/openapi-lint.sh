#!/usr/bin/env bash
# Checks docs/openapi.yaml with openapi-spec-validator and Redocly, which must report no error and no
# warning. Installs fixed versions of both below .tools. Needs node, npm and python3 with venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Redocly 1 runs on the Node.js of Debian 12; version 2 does not.
validator_version=0.9.0
redocly_version=1.34.5

venv=.tools/openapi-spec-validator-$validator_version
if [[ ! -x $venv/bin/openapi-spec-validator ]]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check --no-input \
        "openapi-spec-validator==$validator_version"
fi
redocly=.tools/redocly-$redocly_version
if [[ ! -f $redocly/installed ]]; then
    rm -rf "$redocly"
    mkdir -p "$redocly"
    npm install --prefix "$redocly" --no-fund --no-audit --loglevel=error \
        "@redocly/cli@$redocly_version" </dev/null
    touch "$redocly/installed"
fi

"$venv/bin/openapi-spec-validator" docs/openapi.yaml
REDOCLY_TELEMETRY=off "$redocly/node_modules/.bin/redocly" lint \
    --config docs/redocly.yaml docs/openapi.yaml
