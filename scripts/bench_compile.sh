#!/usr/bin/env bash
# What sixty pipelines of ten operators cost in compile time: CPU seconds of compiler and linker for the binary's own
# crate, dependencies apart; once with one record type for all, once with a type each. Prints a table.
#
#   scripts/bench_compile.sh [debug|release]...   both, if none is named
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../benches/compile"
[ $# -gt 0 ] || set -- debug release

cp ../../Cargo.lock Cargo.lock # the versions that are compiled already
trap 'rm -f Cargo.lock' EXIT
export CARGO_INCREMENTAL=0

measure() { # measure PROFILE BINARY SECONDS_AT_MOST
    local flags=() times TIMEFORMAT='%U %S'
    [ "$1" = debug ] || flags=(--release)
    cargo build --quiet "${flags[@]}" --bin "$2"
    touch "src/bin/$2.rs"
    times=$({ time cargo build --quiet "${flags[@]}" --bin "$2" >/dev/null 2>&1; } 2>&1)
    awk -v name="$2" -v profile="$1" -v most="$3" \
        '{ printf "%-10s %-8s %6.1f s of CPU   (at most %s s)\n", name, profile, $1 + $2, most }' <<<"$times"
}

for profile in "$@"; do
    case $profile in
    debug) measure debug one_type 6 && measure debug type_each 20 ;;
    release) measure release one_type 25 && measure release type_each 80 ;;
    *) echo "debug or release, not $profile" >&2 && exit 2 ;;
    esac
done
