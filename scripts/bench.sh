#!/usr/bin/env bash
# Runs the benchmarks and keeps what they print in benches/results/<date>-<cores>cores.txt, with what one must know of the
# machine. What the figures mean is in benches/README.md.
#
#   scripts/bench.sh [--quick] [part of a workload's name]...
#
# With names, or with --quick, it prints and keeps nothing: only whole runs are results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${MILLSTREAM_TARGET_DIR:-$HOME/.cache/millstream-target}}"

# the same packages and features as the other targets of the Makefile, or features differ and RocksDB is compiled again
read -ra flags <<<"${CARGO_FLAGS:-}"
bench=(cargo bench --quiet --workspace --features kafka ${flags[@]+"${flags[@]}"})
[ ! -e tests/ui/Cargo.toml ] || bench+=(--exclude millstream-ui)

machine() {
    local cores model memory
    cores=$(getconf _NPROCESSORS_ONLN)
    model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -1)
    memory=$(awk '/^MemTotal/ { printf "%d GiB", $2 / 1048576 + 0.5 }' /proc/meminfo 2>/dev/null || true)
    echo "date      $(date -u +'%F %R UTC')"
    echo "commit    $(git describe --always --dirty 2>/dev/null || echo unknown)"
    echo "machine   $cores cores, ${model:-unknown}, ${memory:-unknown memory}, $(uname -sr)"
    echo "load      $(cut -d' ' -f1-3 /proc/loadavg 2>/dev/null || echo unknown) (1, 5 and 15 min before the run)"
    echo "disk      $(df --output=fstype "${TMPDIR:-/tmp}" 2>/dev/null | tail -1)"
    echo "compiler  $(rustc --version)"
}

"${bench[@]}" --bench workloads --bench micro --no-run
if [ $# -gt 0 ]; then
    exec "${bench[@]}" --bench workloads -- "$@"
fi
mkdir -p benches/results
results="benches/results/$(date +%F)-$(getconf _NPROCESSORS_ONLN)cores.txt"
{
    machine
    echo
    "${bench[@]}" --bench workloads
    if command -v java >/dev/null; then
        "${bench[@]}" --bench workloads -- kafka
    else
        echo "the workloads with Kafka are left out: they need Java (make setup)"
    fi
    "${bench[@]}" --bench micro
} | tee "$results.unfinished"
mv "$results.unfinished" "$results"
echo "kept in $results"
