#!/usr/bin/env bash
# Checks that cargo, rustfmt and clippy are installed. rustup installs the toolchain
# and the components that rust-toolchain.toml names. Without rustup the script uses
# the installed toolchain, and fails if a component is missing. Cargo.toml names the
# oldest supported version, and cargo refuses an older one.
set -euo pipefail

if ! cargo --version >/dev/null; then
    echo "missing: a Rust toolchain: install rustup (https://rustup.rs)" >&2
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
