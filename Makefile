# The tasks of this project; `make` lists them. Each target installs the missing
# tools that it needs. If it cannot install one, it names the tool and fails.

# Debian installs servers such as nginx in sbin, which is not in the PATH of
# ordinary users.
export PATH := $(PATH):/usr/sbin:/sbin

DENY_VERSION := 0.20.2
DENY := .tools/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
AUDITABLE_VERSION := 0.7.7
AUDITABLE := .tools/cargo-auditable-$(AUDITABLE_VERSION)/bin/cargo-auditable
CYCLONEDX_VERSION := 0.5.9
CYCLONEDX := .tools/cargo-cyclonedx-$(CYCLONEDX_VERSION)/bin/cargo-cyclonedx

.DEFAULT_GOAL := help
.PHONY: help run test promtool hostile test-api chaos conformance lint fmt-check clippy docs deny advisories openapi release sbom fmt bench bench-upload bench-scale bench-imaging size fuzz defaults-sheet needs servers server-versions traced

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: needs ## Build and start the service, like `cargo run --release`
	cargo run --release --locked

test: needs servers server-versions promtool traced ## Run every test: unit, contract, black-box (three backends), short chaos, documentation
	cargo test --locked --workspace
	TEST_BACKEND=fleet cargo test --locked --test black_box
	TEST_BACKEND=cluster cargo test --locked --test black_box

hostile: needs servers ## Send hostile requests from a random seed (HOSTILE_REQUESTS=50000, HOSTILE_SEED)
	HOSTILE_SEED=$(or $(HOSTILE_SEED),$(strip $(shell od -An -N4 -tu4 /dev/urandom))) \
	HOSTILE_REQUESTS=$(or $(HOSTILE_REQUESTS),50000) \
	cargo test --locked --test black_box hostile_requests_ -- --nocapture

test-api: needs ## Test the running service against its OpenAPI document (ARGS='--seed 7 --examples 50')
	@scripts/need.sh python3 python:ensurepip=python3-venv
	cargo build --locked --bin cameo
	scripts/api-test.sh $(ARGS)

chaos: needs servers ## Test the service under faults (CHAOS_SECONDS=120, CHAOS_SEED, CHAOS_S3=seaweedfs)
	CHAOS_SECONDS=$(or $(CHAOS_SECONDS),120) CHAOS_SEED=$(CHAOS_SEED) CHAOS_S3=$(CHAOS_S3) cargo test --locked --test chaos

conformance: needs servers ## Run the suites on real S3 servers, Redis and Valkey (ARGS='--only minio'); writes docs/object-stores.md
	cargo test --locked --test conformance -- $(ARGS)

lint: fmt-check clippy docs deny openapi ## Run all checks of a change, except the tests

fmt-check: needs ## Check the formatting
	cargo fmt --all --check

clippy: needs ## Run clippy, also on tests and benchmarks
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --test conformance --test defaults_sheet -- -D warnings

docs: needs ## Build the documentation, with private items, into target/doc
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items

deny: $(DENY) ## Check the dependencies against deny.toml
	$(DENY) --locked check --hide-inclusion-graph licenses bans sources

advisories: $(DENY) ## Check the dependencies against the advisories of RustSec, from the network
	$(DENY) --locked check --hide-inclusion-graph advisories

openapi: ## Check docs/openapi.yaml with openapi-spec-validator and Redocly
	@scripts/need.sh node=nodejs npm=npm python3 python:ensurepip=python3-venv
	scripts/openapi-lint.sh

fmt: needs ## Format the code
	cargo fmt --all

release: needs $(AUDITABLE) ## Build the release program, with the list of its crates inside
	@scripts/need.sh objcopy=binutils python3
	PATH="$(CURDIR)/$(dir $(AUDITABLE)):$$PATH" cargo auditable build --release --locked --bin cameo
	@scripts/crates-in.sh target/release/cameo | grep -q '^cameo ' || { echo "the program has no list of its crates" >&2; exit 1; }

sbom: needs $(CYCLONEDX) ## Write the software bill of materials into target/cameo.cdx.json
	@scripts/need.sh python3 python:ensurepip=python3-venv
	scripts/sbom.sh $(CYCLONEDX) target/cameo.cdx.json

size: release ## Build the release program and check that it is smaller than 30 MB
	@bytes=$$(wc -c < target/release/cameo); echo "target/release/cameo has $$bytes bytes"; \
	test "$$bytes" -lt 30000000 || { echo "it must be smaller than 30,000,000 bytes" >&2; exit 1; }

bench: needs servers ## Run the benchmarks, with a 12-megapixel phone photo
	@scripts/need.sh wrk
	scripts/bench-photo.sh
	cargo bench --locked --workspace --bench service --bench access --bench imaging --bench upload
	cargo bench --locked --bench upload -- isolation

bench-upload: needs servers ## Compare uploads on SeaweedFS and Redis with FastAPI and Fastify (ARGS='--rounds 1')
	@scripts/need.sh node=nodejs npm=npm python3=python3,python3-venv
	bench/peers/run.sh $(ARGS)

bench-scale: needs servers ## Measure a catalog of a million avatars, and gc and rebuild on 99,000 objects
	@scripts/need.sh python3=python3,python3-venv
	scripts/servers/seaweedfs.sh install
	cargo bench --locked --bench catalog
	cargo bench --locked --bench upload -- maintain

# The Redis and nginx that the tests start.
servers:
	@scripts/need.sh redis-server nginx=nginx-light

# Prometheus's own tool, which checks the metrics.
promtool:
	@scripts/promtool.sh >/dev/null

# Other Redis versions, and libfaketime for wrong clocks, which a few tests need.
server-versions: servers
	@scripts/need.sh faketime
	@scripts/servers/valkey.sh install
	@scripts/servers/redis6.sh install

# strace and unshare, with which tests of full disks and of durability run the program.
traced:
	@scripts/need.sh strace unshare=util-linux

bench-imaging: needs ## Compare imaging with sharp, Pillow and pyvips (ARGS='--rounds 3')
	@scripts/need.sh node=nodejs npm=npm python3=python3,python3-venv
	bench/imaging/run.sh $(ARGS)

defaults-sheet: needs ## Draw 200 defaults into docs/images/defaults.webp
	cargo test --locked --test defaults_sheet -- $(CURDIR)/docs/images/defaults.webp

fuzz: needs ## Fuzz imaging under AddressSanitizer, FUZZ_SECONDS=60 for each target
	@scripts/need.sh c++=g++
	fuzz/run.sh $(or $(FUZZ_SECONDS),60)

# A Rust toolchain, and a C compiler, which builds libwebp's encoder and links.
needs:
	@scripts/need.sh cc=gcc,libc6-dev
	@scripts/need-rust.sh

# Cargo's own tools are built without optimisation and debug information. A build takes up to two
# minutes, and a check two seconds.
define install-cargo-tool
CARGO_PROFILE_DEV_DEBUG=0 cargo install $(1) --version $(2) --locked --debug --quiet --root .tools/$(1)-$(2)
endef

$(DENY): | needs
	$(call install-cargo-tool,cargo-deny,$(DENY_VERSION))

$(AUDITABLE): | needs
	$(call install-cargo-tool,cargo-auditable,$(AUDITABLE_VERSION))

$(CYCLONEDX): | needs
	$(call install-cargo-tool,cargo-cyclonedx,$(CYCLONEDX_VERSION))
