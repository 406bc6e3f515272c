#!/usr/bin/env bash
# Shows what exactly once means: counts the words of examples/data undisturbed, then once more while the process is
# killed with SIGKILL three times and started again on the same folders, and compares both outputs with each other and
# with what `tr` and `awk` count. Exit 0 only when all three are equal.
#
#   WORD_COUNT=path   use this binary and build nothing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C

INPUT=examples/data
SECONDS_WANTED=9       # how long the disturbed run takes, were it left alone
KILL_AT=(20 45 70)     # kill when so many per cent of the output are visible
PATIENCE=90            # seconds without progress before the demo gives up
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${MILLSTREAM_TARGET_DIR:-$HOME/.cache/millstream-target}}"

bold='' red='' green='' dim='' off='' live=false
if [ -t 1 ]; then
    live=true
    [ -n "${NO_COLOR:-}" ] || { bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' dim=$'\e[2m' off=$'\e[0m'; }
fi

pid=''
work=$(mktemp -d "${TMPDIR:-/tmp}/millstream-demo.XXXXXX")
tidy_up() {
    local status=$?
    [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
    if [ $status -eq 0 ]; then rm -rf "$work"; else printf '\nleft for a look: %s\n' "$work"; fi
}
trap tidy_up EXIT
trap 'exit 130' INT TERM

thousands() { awk -v n="$1" 'BEGIN { while (n ~ /^[0-9][0-9][0-9][0-9]/) { r = "," substr(n, length(n) - 2) r; n = substr(n, 1, length(n) - 3) } print n r }'; }
now_ms() { local t=${EPOCHREALTIME:-$(date +%s).000000}; echo $((${t/[.,]/} / 1000)); }
title() { printf '\n%s%s%s\n' "$bold" "$*" "$off"; }
row() { $live && printf '\r\e[K'; printf '  %-34s %12s lines  %s\n' "$1" "$(thousands "$2")" "${3:-}"; }
progress() { ! $live || printf '\r\e[K  %s%-34s %12s lines%s' "$dim" "running" "$(thousands "$1")" "$off"; }
fail() {
    $live && printf '\r\e[K'
    printf '\n%sFAILED: %s%s\n' "$red" "$*" "$off"
    [ ! -s "$work/log" ] || { echo "the last lines of its log:"; tail -n 12 "$work/log" | cut -c1-200 | sed 's/^/  | /'; }
    exit 1
}

# The visible output: part files whose names do not begin with a dot.
visible() { [ ! -d "$work/$1/output" ] || (cd "$work/$1/output" && find . -type f ! -path '*/.*' -print0); }
contents() { visible "$1" | (cd "$work/$1/output" 2>/dev/null && xargs -0 -r cat --); }
lines_of() { { contents "$1" || true; } | wc -l | tr -d ' '; }
sums() { visible "$1" | (cd "$work/$1/output" && xargs -0 -r cksum --); }

begin() { # begin RUN [FLAGS]: starts word_count in the background
    local run=$1
    shift
    "$binary" run --input "$INPUT" --output "$work/$run/output" --data-dir "$work/$run/data" "$@" \
        >>"$work/log" 2>&1 </dev/null &
    pid=$!
}

# Waits for the process; its exit code is the function's, and the shell's own notice of a killed job is dropped.
reap() { local status=0; { wait "$pid" || status=$?; } 2>/dev/null; pid=''; return $status; }

# Waits until LINES are visible; fails when the process ends before or stands still.
await_lines() {
    local wanted=$1 seen=0 newest patience
    patience=$((SECONDS + PATIENCE))
    while [ "$seen" -lt "$wanted" ]; do
        kill -0 "$pid" 2>/dev/null || { reap || fail "word_count ended with exit code $?"; fail "it was done before it could be killed"; }
        [ $SECONDS -lt $patience ] || fail "no progress for $PATIENCE seconds"
        newest=$(lines_of disturbed)
        [ "$newest" = "$seen" ] || patience=$((SECONDS + PATIENCE))
        seen=$newest
        progress "$seen"
        sleep 0.05
    done
}

equal() { # equal A B WHAT
    cmp -s "$work/$1" "$work/$2" && return
    diff "$work/$1" "$work/$2" | grep '^[<>]' | head -n 5 | sed 's/^/  /' || true
    fail "$3 ('<' is only in $1, '>' only in $2)"
}

# ---------------------------------------------------------------------------------------------------------------------
binary=${WORD_COUNT:-}
if [ -z "$binary" ]; then
    # Dev profile and the whole workspace's features: everything compiled here is what `make test` compiles.
    members=(--workspace --features kafka)
    [ ! -e tests/ui/Cargo.toml ] || members+=(--exclude millstream-ui)
    # shellcheck disable=SC2086  # CARGO_FLAGS is a list
    cargo build "${members[@]}" ${CARGO_FLAGS:-} --example word_count
    binary=$CARGO_TARGET_DIR/debug/examples/word_count
fi
[ -x "$binary" ] || fail "no program at $binary"

novels=("$INPUT"/*.txt)
text_lines=$(cat "${novels[@]}" | wc -l | tr -d ' ')
title "1. Undisturbed: the words of ${#novels[@]} novels, $(thousands "$text_lines") lines of text"
: >"$work/log"
started=$(now_ms)
begin undisturbed
reap || fail "word_count ended with exit code $?"
took=$(($(now_ms) - started))
all=$(lines_of undisturbed)
[ "$all" -gt 0 ] || fail "there is no output"
row "finished" "$all" "$(awk -v ms=$took 'BEGIN { printf "%.1f s", ms / 1000 }')"

title "2. The same, slowed down, checkpoint every 200 ms, killed three times"
: >"$work/log"
slowly=(--rate $((text_lines / SECONDS_WANTED)) --checkpoint-interval 200ms)
started=$(now_ms)
for n in 1 2 3; do
    begin disturbed "${slowly[@]}"
    await_lines $((all * KILL_AT[n - 1] / 100))
    sleep "0.$(printf '%03d' $((RANDOM % 250)))" # anywhere between two checkpoints
    kill -KILL "$pid" 2>/dev/null || fail "it was done before it could be killed"
    status=0
    reap || status=$?
    [ $status -eq 137 ] || fail "it was to die by SIGKILL, but ended with exit code $status"
    sums disturbed >"$work/sums-$n"
    row "kill -9, the $(echo first second third | cut -d' ' -f$n); visible by then" "$(lines_of disturbed)" \
        "$(awk -v a="$(lines_of disturbed)" -v b="$all" 'BEGIN { printf "%3d %%", 100 * a / b }')"
done
begin disturbed "${slowly[@]}"
while kill -0 "$pid" 2>/dev/null; do
    progress "$(lines_of disturbed)"
    sleep 0.1
done
reap || fail "word_count ended with exit code $?"
took=$(($(now_ms) - started))
row "finished" "$(lines_of disturbed)" "$(awk -v ms=$took 'BEGIN { printf "%.1f s", ms / 1000 }')"

title "3. Compared"
contents undisturbed | sort >"$work/undisturbed.sorted"
contents disturbed | sort >"$work/disturbed.sorted"
cat "${novels[@]}" | tr -cs '[:alnum:]' '\n' | tr '[:upper:]' '[:lower:]' \
    | awk 'NF { printf "{\"word\":\"%s\",\"count\":%d}\n", $0, ++times[$0] }' | sort >"$work/tr-and-awk.sorted"
equal undisturbed.sorted disturbed.sorted "the outputs differ"
printf '  %-34s %s\n' "undisturbed and killed" "equal, line by line"
equal undisturbed.sorted tr-and-awk.sorted "the output is not what tr and awk count"
printf '  %-34s %s\n' "with what tr and awk count" "equal, line by line"
for n in 1 2 3; do
    [ -s "$work/sums-$n" ] || continue
    while read -r sum bytes file; do
        [ "$(cksum <"$work/disturbed/output/$file")" = "$sum $bytes" ] || fail "visible before kill $n, changed or gone since: $file"
    done <"$work/sums-$n"
done
printf '  %-34s %s\n' "files visible at a kill" "all unchanged at the end"

title "The ten most frequent words"
awk -F'"' '{ n = $(NF); gsub(/[^0-9]/, "", n); if (n + 0 > most[$4]) most[$4] = n + 0 }
    END { for (word in most) print most[word], word }' "$work/disturbed.sorted" | sort -k1,1nr -k2,2 >"$work/words"
head -n 10 "$work/words" | awk '{ printf "  %-10s %7d\n", $2, $1 }'

printf '\n%sok: killed three times, and not one of %s counts is lost, doubled or different%s\n' \
    "$green" "$(thousands "$all")" "$off"
