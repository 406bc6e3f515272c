#!/usr/bin/env bash
# Makes this machine ready to build millstream: installs what is missing on Debian and Ubuntu, says what to do elsewhere.
# Idempotent, and quick when nothing is missing. Installs nothing into the checkout.
#
#   scripts/setup.sh [build] [kafka] [lint] [deny]
#     build  cargo, a C++20 compiler, libclang (bindgen reads RocksDB's header with it), ccache
#     kafka  Java 17 and Maven, from which scripts/kafka.sh makes the broker of the tests
#     lint   rustfmt and clippy
#     deny   cargo-deny
#
#   MILLSTREAM_NO_INSTALL=1  only say what is missing
#   MILLSTREAM_SKIP_SETUP=1  do nothing at all: you know better than the checks below
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ -z "${MILLSTREAM_SKIP_SETUP:-}" ] || exit 0

TOOLS="${MILLSTREAM_TOOLS_DIR:-$HOME/.cache/millstream-tools}"
DENY_VERSION=0.20.2     # what is installed when there is none
DENY_VERSION_MIN=0.18.0 # what understands our deny.toml
JAVA_MIN=17             # what Apache Kafka 4 runs on
PATH="$TOOLS/bin:$PATH:$HOME/.cargo/bin"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
at_least() { printf '%s\n%s\n' "$2" "$1" | sort -C -V; } # at_least FOUND WANTED

check_rust() {
    { have cargo && have rustc; } || die "no cargo here: install Rust from https://rustup.rs, then run this again"
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(rustc --version | cut -d' ' -f2)
    at_least "$found" "$wanted" || die "Rust $found is too old, $wanted is needed: rustup update stable"
}

# Whether bindgen will find libclang and clang's own headers; its look-up knows these places too.
have_libclang() {
    local prefix
    [ -z "${LIBCLANG_PATH:-}" ] || return 0
    for prefix in /usr/lib/llvm-* /usr/lib/llvm* /usr /usr/local /usr/local/llvm* /opt/homebrew/opt/llvm /usr/local/opt/llvm \
        /Library/Developer/CommandLineTools/usr /Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr; do
        if compgen -G "$prefix/lib*/libclang*.so*" >/dev/null || compgen -G "$prefix/lib*/libclang*.dylib" >/dev/null; then
            compgen -G "$prefix/lib*/clang/*/include/stddef.h" >/dev/null && return 0
        fi
    done
    return 1
}

# Debian's packages for what is missing, as words: `needed` stops the build, `wished` only slows it down.
find_missing() {
    needed='' wished=''
    if ! have cc || ! have c++ || ! have make; then
        needed+=' build-essential'
    elif ! c++ -std=c++20 -fsyntax-only -x c++ /dev/null 2>/dev/null; then
        die "the C++ compiler does not know C++20 ($(c++ --version | head -n 1)): install g++ 11 or clang 14, or newer ones"
    fi
    have_libclang || needed+=' libclang-dev'
    have ccache || wished+=' ccache'
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

apt_install() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
    say "installing $*"
    as_root "${apt[@]}" update >&2 && as_root "${apt[@]}" install --no-install-recommends "$@" >&2
}

tell_what_to_do() {
    say "missing:$1 (these are Debian's names)"
    say "  Debian, Ubuntu  sudo apt-get install build-essential libclang-dev ccache"
    say "  Fedora          sudo dnf install make gcc-c++ clang-devel ccache"
    say "  Arch            sudo pacman -S base-devel clang ccache"
    say "  openSUSE        sudo zypper install make gcc-c++ clang-devel ccache"
    say "  macOS           xcode-select --install; brew install ccache"
    say "libclang somewhere else: set LIBCLANG_PATH to its folder"
}

setup_build() {
    check_rust
    find_missing
    [ -n "$needed$wished" ] || return 0
    if [ -z "${MILLSTREAM_NO_INSTALL:-}" ] && have apt-get && { [ "$(id -u)" -eq 0 ] || have sudo; }; then
        # shellcheck disable=SC2086
        apt_install $needed $wished || say "apt-get did not succeed"
        find_missing
    fi
    if [ -n "$needed" ]; then
        tell_what_to_do "$needed$wished"
        exit 1
    fi
    [ -z "$wished" ] || say "no ccache: works without, but RocksDB's C++ is compiled anew for every profile and clone"
}

has_java() {
    local version
    have java || return 1
    version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
    [ "${version:-0}" -ge "$JAVA_MIN" ]
}

# Debian's packages for what is missing; of Java the newest that this release has, for not all have 17.
find_missing_for_kafka() {
    local version
    needed=''
    if ! has_java; then
        needed=" openjdk-$JAVA_MIN-jre-headless"
        for version in 17 21 25; do
            apt-cache show "openjdk-$version-jre-headless" >/dev/null 2>&1 && needed=" openjdk-$version-jre-headless"
        done
    fi
    have mvn || needed+=' maven'
}

setup_kafka() {
    # Docker has its own Java, and a broker elsewhere needs none: but those tests that kill brokers start theirs here.
    find_missing_for_kafka
    [ -n "$needed" ] || return 0
    if [ -z "${MILLSTREAM_NO_INSTALL:-}" ] && have apt-get && { [ "$(id -u)" -eq 0 ] || have sudo; }; then
        # shellcheck disable=SC2086
        apt_install $needed || say "apt-get did not succeed"
        find_missing_for_kafka
    fi
    [ -n "$needed" ] || return 0
    say "missing for the broker of the tests:$needed (these are Debian's names)"
    say "  Debian, Ubuntu  sudo apt-get install openjdk-17-jre-headless maven"
    say "  Fedora          sudo dnf install java-21-openjdk-headless maven"
    say "  Arch            sudo pacman -S jre21-openjdk-headless maven"
    say "  openSUSE        sudo zypper install java-21-openjdk-headless maven"
    say "  macOS           brew install openjdk@21 maven"
    exit 1
}

setup_lint() {
    local component
    for component in rustfmt clippy; do
        if ! have "cargo-${component#rust}" || ! "cargo-${component#rust}" --version >/dev/null 2>&1; then
            { [ -z "${MILLSTREAM_NO_INSTALL:-}" ] && have rustup; } \
                || die "$component is missing: rustup component add $component, or your distribution's package"
            say "installing $component"
            rustup component add "$component" >&2
        fi
    done
}

setup_deny() {
    local found
    if have cargo-deny; then
        found=$(cargo-deny --version | cut -d' ' -f2)
        at_least "$found" "$DENY_VERSION_MIN" && return 0
        say "cargo-deny $found is too old for deny.toml"
    fi
    [ -z "${MILLSTREAM_NO_INSTALL:-}" ] \
        || die "cargo-deny is missing: cargo install --locked cargo-deny --version $DENY_VERSION"
    say "installing cargo-deny $DENY_VERSION into $TOOLS (once, some minutes)"
    # Without our target directory cargo builds in a temporary one and clears it away.
    env -u CARGO_TARGET_DIR CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install --quiet --locked --root "$TOOLS" cargo-deny --version "$DENY_VERSION" >&2
}

[ $# -gt 0 ] || set -- build
for part in "$@"; do
    case $part in
        build | kafka | lint | deny) "setup_$part" ;;
        *) die "'$part' is none of build, kafka, lint, deny" ;;
    esac
done
