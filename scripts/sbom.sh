#!/usr/bin/env bash
# Writes the software bill of materials of the program: its crates with their versions, licences and
# checksums, in the format CycloneDX 1.5.
#
#     scripts/sbom.sh CARGO_CYCLONEDX FILE
#
# The tool that writes it is the first argument. Another one, cyclonedx-python-lib, checks it against
# the schema of the format. Needs python3 with venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

checker_version=11.12.0

tool=$PWD/$1
file=$2
venv=.tools/cyclonedx-python-lib-$checker_version
if [[ ! -f $venv/installed ]]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check --no-input \
        "cyclonedx-python-lib[json-validation]==$checker_version"
    touch "$venv/installed"
fi

# The tool writes a file beside every Cargo.toml of the workspace. Only the program's is needed.
name=sbom-$$
trap 'rm -f "$name.json" crates/*/"$name.json"' EXIT
cargo metadata --locked --format-version 1 >/dev/null
"$tool" cyclonedx --quiet --format json --spec-version 1.5 --override-filename "$name"
mkdir -p "$(dirname "$file")"
# The folder of the build is in the names of the program's own crates, and means nothing elsewhere.
sed "s|path+file://$PWD|path+file:///cameo|g" "$name.json" >"$file"

"$venv/bin/python" - "$file" <<'PYTHON'
import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

with open(sys.argv[1], encoding="utf-8") as file:
    text = file.read()
error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
if error:
    sys.exit(f"{sys.argv[1]} does not follow the schema: {error}")
parts = json.loads(text)["components"]
if len(parts) < 100:
    sys.exit(f"{sys.argv[1]} has only {len(parts)} crates")
print(f"{sys.argv[1]} has {len(parts)} crates")
PYTHON
