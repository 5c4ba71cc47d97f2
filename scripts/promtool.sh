#!/usr/bin/env bash
# Prints the path of promtool, which checks metrics in the way Prometheus reads them.
#
# If promtool is not in the PATH, the script extracts it from Debian's package
# `prometheus` into .tools. It does not install the package, which would start a
# server. If that is not possible, the script says what is missing and fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if command -v promtool; then
    exit 0
fi
tool=$PWD/.tools/promtool
if [[ ! -x $tool ]]; then
    scripts/need.sh apt-get=prometheus dpkg-deb=dpkg >&2
    mkdir -p .tools
    folder=$(mktemp -d .tools/promtool.XXXXXX)
    trap 'rm -rf "$folder"' EXIT
    download() { (cd "$folder" && apt-get download -qq prometheus) >&2; }
    if ! download 2>/dev/null; then
        as_root=()
        [[ $EUID -eq 0 ]] || as_root=(sudo)
        "${as_root[@]}" apt-get update -qq >&2
        download
    fi
    dpkg-deb --fsys-tarfile "$folder"/prometheus_*.deb | tar -x -C "$folder" ./usr/bin/promtool
    mv "$folder/usr/bin/promtool" "$tool"
fi
echo "$tool"
