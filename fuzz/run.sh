#!/usr/bin/env bash
# Fuzzes imaging under AddressSanitizer.
#
#     fuzz/run.sh [SECONDS] [TARGET…]
#
# Every target (process, jpeg, png, webp, gif, heic, avif) runs for SECONDS (60 by default) of one core,
# one after the other, from the corpus of earlier runs and the pictures in tests/fixtures. What it
# finds lies in fuzz/artifacts; a finding ends the run with an error.
#
# The stable compiler builds it: RUSTC_BOOTSTRAP lets it take the sanitizer's flags. Besides Rust
# it needs a C++ compiler, for libFuzzer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds=${1:-60}
shift || true
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(process jpeg png webp gif heic avif)

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
        *) seeds=(../tests/fixtures/*."$name") ;;
    esac
    for seed in "${seeds[@]}"; do
        cp -n "$seed" "$corpus/" 2>/dev/null || true
    done
    echo "fuzz: $name for $seconds s, $(find "$corpus" -type f | wc -l) pictures to begin with"
    # What AV1's decoder leaks goes with its process, except here, where it has none of its own.
    leaks=1
    [[ $name != avif && $name != process ]] || leaks=0
    export ASAN_OPTIONS=detect_leaks=$leaks
    # A picture may take 5 s by its deadline, and far less memory than this.
    "target/$target/release/$name" "$corpus" \
        -artifact_prefix="artifacts/$name/" -max_total_time="$seconds" -detect_leaks=$leaks \
        -timeout=25 -rss_limit_mb=2048 -max_len=131072 -print_final_stats=1 2>&1 |
        grep -E '^(==|SUMMARY|stat::|#.*(DONE|cov:.*pulse)|.*panicked|.*ERROR)' || true
    if [[ -n $(ls -A "artifacts/$name") ]]; then
        echo "fuzz: $name found something: fuzz/artifacts/$name" >&2
        exit 1
    fi
done
