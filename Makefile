# Everything that is done with this repository. `make help` lists it; CI calls the same targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# What is slow to make is kept outside the checkout, so that a fresh clone finds it.
export MYCELIUM_HOME ?= $(HOME)/.cache/mycelium
export CARGO_TARGET_DIR ?= $(MYCELIUM_HOME)/target
# One profile for images, tests and benches: building the dependencies twice costs more than the optimiser.
PROFILE := release
BIN := $(CARGO_TARGET_DIR)/$(PROFILE)
VENV := $(MYCELIUM_HOME)/venv
DENY_VERSION := 0.20.2
DENY := $(MYCELIUM_HOME)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
# Programs that tests start.
export MYCELIUM_DEVCHAIN := $(BIN)/mycelium-devchain
export MYCELIUM_SIDECAR := $(BIN)/mycelium-sidecar

.PHONY: help
help: ## List all targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- the cluster -------------------------------------------------------------------------------

.PHONY: up
up: preflight build wheel ## Bring up everything: Kubernetes, a chain, the operator, validators and miners (NODES=3, CLUSTER=local|kind)
	@$(BIN)/mycelium-cluster up

.PHONY: down
down: ## Stop the cluster and leave nothing behind
	@if [ -x $(BIN)/mycelium-cluster ]; then $(BIN)/mycelium-cluster down; else cargo run --quiet --profile $(PROFILE) -p e2e --bin mycelium-cluster -- down; fi

.PHONY: kubeconfig
kubeconfig: ## Print the path of the cluster's kubeconfig
	@$(BIN)/mycelium-cluster kubeconfig

.PHONY: preflight
preflight:
	@e2e/preflight.sh

# ---- building ------------------------------------------------------------------------------------

# Checkouts share the cargo target folder for the dependencies. To cargo their own crates are the same ones, told apart by the time of change
# alone: without this a checkout could get what another one built.
.PHONY: own-target
own-target:
	@owner=$(CARGO_TARGET_DIR)/.checkout; \
	if [ -e $$owner ] && [ "$$(cat $$owner)" != '$(CURDIR)' ]; then cargo clean --quiet --workspace; fi; \
	mkdir -p $(CARGO_TARGET_DIR) && echo '$(CURDIR)' >$$owner

.PHONY: build
build: own-target ## Build every program
	@cargo build --profile $(PROFILE) --workspace --bins

.PHONY: wheel
wheel: own-target $(VENV)/.build ## Build the Python wheel
	@$(VENV)/bin/maturin build --quiet --profile $(PROFILE) --manifest-path python/Cargo.toml --out $(CARGO_TARGET_DIR)/wheels

$(VENV)/.build: python/requirements-build.txt
	@python3 -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet -r $<
	@touch $@

.PHONY: generate
generate: own-target ## Write again what is generated from code: the CRDs and the description of the sidecar's API
	@cargo run --quiet --profile $(PROFILE) -p sidecar -- openapi >sidecar/openapi.json.new
	@mv sidecar/openapi.json.new sidecar/openapi.json
	@cargo run --quiet --profile $(PROFILE) -p crds --bin crdgen -- crds/yaml charts/mycelium-crds/templates

# ---- tests -----------------------------------------------------------------------------------------

.PHONY: test
test: preflight build wheel ## Every test there is, with totals at the end (brings the cluster up)
	@.ci/test all

.PHONY: unit
unit: build ## Tests that need no cluster
	@.ci/test unit

.PHONY: simulate
simulate: own-target ## Seeded schedules of two sidecars with one key: pauses, partitions, clock jumps, restarts (SEEDS=10000, SEED=n plays one)
	@# The whole workspace is named so that dependencies keep the features, and with them the builds, of the tests.
	@SEEDS=$(or $(SEEDS),10000) cargo test --quiet --profile $(PROFILE) --workspace --lib -- --exact --nocapture \
		signer::simulation::schedules_of_two_sidecars_with_one_key_never_sign_twice_and_always_sign_again

.PHONY: conformance
conformance: build ## Unmodified clients from the registries against the development chain (ONLY=part of a name)
	@e2e/conformance/run.py $(if $(ONLY),--only "$(ONLY)")

.PHONY: e2e
e2e: up ## Tests that drive the cluster
	@.ci/test e2e

# ---- measurements ------------------------------------------------------------------------------------

.PHONY: bench
bench: build ## Measure against the bars that are promised (ONLY=prefix, RSS_MINUTES=60); writes target/bench/report.json
	@# The whole workspace is named so that dependencies keep the features, and with them the builds, of the tests.
	@cargo bench --quiet --profile $(PROFILE) --workspace --bench devchain --bench sidecar --no-fail-fast -- --only '$(ONLY)' \
		--report $(CARGO_TARGET_DIR)/bench/report.json --report $(CURDIR)/target/bench/report.json

# ---- checks ------------------------------------------------------------------------------------------

.PHONY: lint
lint: own-target ## Formatting, clippy, and the same for Python; warnings are errors
	@cargo fmt --all --check
	@cargo clippy --profile $(PROFILE) --workspace --all-targets -- -D warnings
	@$(MAKE) --no-print-directory lint-python

.PHONY: lint-python
lint-python: $(VENV)/.test
	@cd python && $(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy
	@cd e2e/conformance && $(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && \
	  $(VENV)/bin/mypy --strict --ignore-missing-imports run.py clients/operations.py

$(VENV)/.test: python/requirements-test.txt $(VENV)/.build
	@$(VENV)/bin/pip install --quiet -r $<
	@touch $@

.PHONY: docs
docs: own-target ## The Rust documentation, with broken links as errors
	@# Private items are documented, too: a link to one is not broken.
	@RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --profile $(PROFILE) --keep-going --workspace --no-deps --document-private-items

.PHONY: deny
deny: $(DENY) ## Licences, sources and the layers of the workspace
	@$(DENY) --log-level error check bans licenses sources

$(DENY):
	@cargo install --quiet --locked --version $(DENY_VERSION) --root $(MYCELIUM_HOME)/cargo-deny-$(DENY_VERSION) cargo-deny

.PHONY: verify
verify: lint docs deny ## Every check that writes nothing
