# The commands of daily work; `make` alone lists them. `.ci/run` calls the same targets.
#
# MILLSTREAM_TARGET_DIR  where cargo builds; outside the checkout, so that every clone shares compiled dependencies
# MILLSTREAM_TOOLS_DIR   where `make setup-deny` puts cargo-deny
# MILLSTREAM_NO_INSTALL  set: setup says what is missing and installs nothing
# MILLSTREAM_KAFKA_DIR   where `make kafka-up` keeps its broker
# CARGO_FLAGS            passed to every cargo command that resolves dependencies, such as --locked

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export CARGO_TARGET_DIR := $(or $(MILLSTREAM_TARGET_DIR),$(HOME)/.cache/millstream-target)
export MILLSTREAM_TOOLS_DIR := $(or $(MILLSTREAM_TOOLS_DIR),$(HOME)/.cache/millstream-tools)
export PATH := $(MILLSTREAM_TOOLS_DIR)/bin:$(PATH):$(HOME)/.cargo/bin

# C++ goes through ccache where there is one. Looked up when a recipe starts and not when make does: `setup` may have
# installed ccache a moment ago, and another CC later would compile RocksDB a second time. A CC of your own stays.
CCACHE = $(and $(filter-out environment,$(origin CC)),$(shell command -v ccache 2>/dev/null))
ENV = $(if $(CCACHE),CC="ccache cc" CXX="ccache c++")
CARGO = $(ENV) cargo

# The compile-error goldens build without RocksDB, so they are tested apart from the rest.
UI := $(if $(wildcard tests/ui/Cargo.toml),millstream-ui)
# With what is tested against a broker, and with it everywhere: other features would compile RocksDB once more.
FEATURES := --features kafka,failpoints
WORKSPACE := --workspace $(if $(UI),--exclude $(UI)) $(FEATURES) $(CARGO_FLAGS)
KAFKA_DIR := $(or $(MILLSTREAM_KAFKA_DIR),$(or $(TMPDIR),/tmp)/millstream-kafka-$(shell id -u))

.PHONY: help setup setup-lint setup-deny env demo kafka-up kafka-down test unit bench bench-compile soak fuzz lint lint-fmt lint-clippy lint-deny doc audit

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## install what a build and its tests need (Debian, Ubuntu) or say what is missing
	@scripts/setup.sh build kafka

setup-lint:
	@scripts/setup.sh build lint

setup-deny:
	@scripts/setup.sh build deny

env: ## print the environment of these targets, for eval "$(make -s env)"
	@echo 'export CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)"$(if $(CCACHE), CC="ccache cc" CXX="ccache c++")'

demo: setup ## count the words of examples/data, kill it three times on the way, compare
	@$(ENV) CARGO_FLAGS="$(CARGO_FLAGS)" scripts/demo.sh

kafka-up: setup ## start an Apache Kafka and print how to use it; tests start their own without it
	@address=$$(scripts/kafka.sh start "$(KAFKA_DIR)") && echo "export MILLSTREAM_KAFKA_BOOTSTRAP=$$address"

kafka-down: ## stop it and remove all it keeps
	@scripts/kafka.sh stop "$(KAFKA_DIR)" && rm -rf "$(KAFKA_DIR)"

test: setup ## all tests: unit, integration and crash tests, compile errors, doctests
	$(CARGO) build $(WORKSPACE) --examples
	$(CARGO) test $(WORKSPACE) --lib --bins --tests
ifdef UI
	$(CARGO) test --package $(UI) $(CARGO_FLAGS)
endif
	$(CARGO) test $(WORKSPACE) --doc

unit: setup ## unit tests only
	$(CARGO) test $(WORKSPACE) --lib

bench: setup ## benchmarks with their baselines; results go to benches/results
ifneq ($(wildcard scripts/bench.sh),)
	@$(ENV) CARGO_FLAGS="$(CARGO_FLAGS)" scripts/bench.sh
else
	@mkdir -p benches/results
	set -o pipefail; $(CARGO) bench $(WORKSPACE) | tee "benches/results/$$(date +%F)-$$(getconf _NPROCESSORS_ONLN)-cores.txt"
endif

bench-compile: setup ## what pipelines cost in compile time (benches/compile)
	@$(ENV) scripts/bench_compile.sh

soak: setup ## crash tests at length: hundreds of kills, release build
	$(CARGO) build --release $(WORKSPACE) --examples
	MILLSTREAM_SOAK=1 $(CARGO) test --release $(WORKSPACE) --test main -- --nocapture soak
	MILLSTREAM_SOAK=1 $(CARGO) test --release $(WORKSPACE) --lib sim:: -- --nocapture

fuzz: setup ## decoders at length: a hundred times as many damaged inputs
	MILLSTREAM_SOAK=1 $(CARGO) test $(WORKSPACE) --lib any_

lint: lint-fmt lint-clippy lint-deny ## format, clippy, bans, licences and sources of dependencies

lint-fmt: setup-lint
	cargo fmt --all --check

lint-clippy: setup-lint
	$(CARGO) clippy --workspace $(FEATURES) $(CARGO_FLAGS) --all-targets -- -D warnings

lint-deny: setup-deny
	cargo deny $(filter --locked --offline --frozen,$(CARGO_FLAGS)) check --hide-inclusion-graph bans licenses sources

doc: setup ## the reference; a broken link is an error
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(WORKSPACE) --no-deps

audit: setup-deny ## known vulnerabilities of dependencies (fetches the RustSec database)
	cargo deny check advisories
