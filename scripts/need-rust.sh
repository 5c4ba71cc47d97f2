#!/usr/bin/env bash
# Checks that cargo, rustfmt and clippy are installed. If rustup manages the
# toolchain, a missing component is added; otherwise the script says what is
# missing and fails. It does not choose the toolchain. Cargo.toml names the oldest
# supported version, and cargo refuses an older one.
set -euo pipefail

if ! cargo --version >/dev/null; then
    echo "missing: a Rust toolchain: install the stable one with rustup" >&2
    exit 1
fi

for component in rustfmt clippy; do
    case $component in
        rustfmt) check=(cargo fmt --version) ;;
        clippy) check=(cargo clippy --version) ;;
    esac
    "${check[@]}" >/dev/null 2>&1 && continue
    echo "adding the toolchain component $component"
    if ! command -v rustup >/dev/null || ! rustup component add "$component" || ! "${check[@]}" >/dev/null; then
        echo "missing: $component: add it to this Rust toolchain (rustup component add $component)" >&2
        exit 1
    fi
done
