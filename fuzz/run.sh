#!/usr/bin/env bash
# Fuzzes imaging under AddressSanitizer.
#
#     fuzz/run.sh [SECONDS] [TARGET…]
#
# The targets (process, jpeg, png, webp, gif, heic, avif, bmp, tiff, webp-decoders) run one after the other, each
# for SECONDS (60 by default) on one core. They start from the corpus of earlier runs and the pictures in tests/fixtures.
# Findings are in fuzz/artifacts; a finding ends the run with an error.
#
# The stable compiler builds the targets: RUSTC_BOOTSTRAP makes it accept the flags of the sanitizer.
# libFuzzer needs a C++ compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds=${1:-60}
shift || true
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(process jpeg png webp gif heic avif bmp tiff webp-decoders)

target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address --cfg fuzzing -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --release --target "$target"

for name in "${targets[@]}"; do
    corpus=corpus/$name
    mkdir -p "$corpus" "artifacts/$name"
    case $name in
        process) seeds=(../tests/fixtures/*.*) ;;
        jpeg) seeds=(../tests/fixtures/*.jpg) ;;
        webp-decoders) seeds=(../tests/fixtures/*.webp) ;;
        *) seeds=(../tests/fixtures/*."$name") ;;
    esac
    for seed in "${seeds[@]}"; do
        cp -n "$seed" "$corpus/" 2>/dev/null || true
    done
    echo "fuzz: $name for $seconds s, $(find "$corpus" -type f | wc -l) initial pictures"
    # The AV1 decoder leaks memory. In the service the memory is freed when the process of the picture
    # ends; here the check for leaks is off for the targets that decode AV1.
    leaks=1
    [[ $name != avif && $name != process ]] || leaks=0
    export ASAN_OPTIONS=detect_leaks=$leaks
    # The deadline of a picture is 5 s, and it needs far less memory than this limit.
    "target/$target/release/$name" "$corpus" \
        -artifact_prefix="artifacts/$name/" -max_total_time="$seconds" -detect_leaks=$leaks \
        -timeout=25 -rss_limit_mb=2048 -max_len=131072 -print_final_stats=1 2>&1 |
        grep -E '^(==|SUMMARY|stat::|#.*(DONE|cov:.*pulse)|.*panicked|.*ERROR)' || true
    if [[ -n $(ls -A "artifacts/$name") ]]; then
        echo "fuzz: $name has a finding: fuzz/artifacts/$name" >&2
        exit 1
    fi
done
