#!/usr/bin/env bash
# Makes sure that cargo, rustfmt and clippy are there, or says what to do and
# fails. A missing component is added where rustup manages the toolchain; the
# toolchain itself is the developer's choice. Cargo.toml says which version is
# the oldest that does, and cargo refuses an older one by itself.
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
