# The working day. Each target installs what it needs and is missing; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help run test test-embedded test-postgres test-s3 check bench bench-lifecycle noisy contract openapi demo chaos deny image clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-15s %s\n", $$1, $$2 }'

run: ## start a server with everything embedded, and print a line to try it with (PORT=8080)
	@scripts/run

test: ## check, then every test on both pairs: SQLite + embedded store, PostgreSQL + Garage
	@scripts/test

test-embedded: ## the tests on SQLite + embedded store only; installs no server
	@scripts/setup toolchain
	cargo test --workspace --locked -- --skip postgres

test-postgres: ## the tests on PostgreSQL + Garage only
	@scripts/setup toolchain postgres garage
	@scripts/with-backends sh -c 'cargo test --test storage --locked && cargo test --test api --test database --locked postgres'

test-s3: ## the stories against a real S3, an empty bucket; see scripts/test-s3 for what to set
	@scripts/setup toolchain postgres
	@scripts/test-s3

check: ## formatting and lints; no tests
	@scripts/setup toolchain
	@scripts/check

bench: ## what the server costs, beside its limits, in one table; scripts/bench --help for the parts
	@scripts/bench

bench-lifecycle: ## what a pass costs among 100 thousand and 10 million finished sessions (SIZES="100000 10000000")
	@scripts/bench-lifecycle $(SIZES)

noisy: ## how much slower a tenant's requests are beside a noisy tenant; scripts/bench-noisy --help for the sorts
	@scripts/bench-noisy

contract: ## hold a running server to its OpenAPI document, with schemathesis from PyPI
	@scripts/contract

openapi: ## write docs/openapi.json from the code
	@scripts/setup toolchain
	cargo run --locked -- openapi > docs/openapi.json.new && mv docs/openapi.json.new docs/openapi.json

demo: ## kill client and server in the middle of a large upload, and watch it resume (BACKEND=garage)
	@scripts/setup toolchain python $(if $(filter garage,$(BACKEND)),postgres garage)
	@scripts/demo $(BACKEND)

chaos: ## three replicas under load and under fire, then a check of everything (SECS=600, SEED=any)
	@scripts/chaos $(or $(SECS),600) $(SEED)

deny: ## licences, advisories and duplicates of the dependencies
	@command -v cargo-deny >/dev/null || { echo "make deny wants cargo-deny: cargo install cargo-deny --locked" >&2; exit 1; }
	cargo deny check

image: ## the container image
	docker build -t quaymaster .

clean: ## remove what was built; keeps ./data and the tools in .cache/bin
	cargo clean
	rm -rf .cache/sample .cache/demo .cache/garage-build
