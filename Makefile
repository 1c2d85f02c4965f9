# Everyday tasks. Each target installs the tools that it needs and that are missing; `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help run test test-embedded test-postgres test-s3 check bench bench-lifecycle noisy contract openapi demo chaos deny image clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-15s %s\n", $$1, $$2 }'

run: ## start a server with everything embedded, and print a command to try it with (PORT=8080)
	@scripts/run

test: ## run check, then every test on both pairs: SQLite + embedded store, PostgreSQL + Garage
	@scripts/test

test-embedded: ## run the tests on SQLite + embedded store only; installs no server
	@scripts/setup toolchain
	cargo test --workspace --locked -- --skip postgres

test-postgres: ## run the tests on PostgreSQL + Garage only
	@scripts/setup toolchain postgres garage
	@scripts/with-backends sh -c 'cargo test --test storage --locked && cargo test --test api --test database --locked postgres'

test-s3: ## run the stories against a real S3 with an empty bucket; see scripts/test-s3 for the variables to set
	@scripts/setup toolchain postgres
	@scripts/test-s3

check: ## check formatting and lints; runs no tests
	@scripts/setup toolchain
	@scripts/check

bench: ## measure what the server costs, compared with its limits, in one table; scripts/bench --help lists the parts
	@scripts/bench

bench-lifecycle: ## measure what a pass costs among 100 thousand and 10 million finished sessions (SIZES="100000 10000000")
	@scripts/bench-lifecycle $(SIZES)

noisy: ## measure how much a noisy tenant slows down another tenant's requests; scripts/bench-noisy --help lists the sorts
	@scripts/bench-noisy

contract: ## check a running server against its OpenAPI document, with schemathesis from PyPI (EXAMPLES=100)
	@scripts/contract $(EXAMPLES)

openapi: ## write docs/openapi.json from the code
	@scripts/setup toolchain
	cargo run --locked -- openapi > docs/openapi.json.new && mv docs/openapi.json.new docs/openapi.json

demo: ## kill client and server in the middle of a large upload, and watch it resume; a Python script (BACKEND=garage)
	@scripts/setup toolchain python $(if $(filter garage,$(BACKEND)),postgres garage)
	@scripts/demo $(BACKEND)

chaos: ## kill, freeze and cut off three replicas under load, then check everything (SECS=600, SEED=any)
	@scripts/chaos $(or $(SECS),600) $(SEED)

deny: ## check the dependencies for licences, sources, banned crates and advisories
	@scripts/deny

image: ## build the container image
	docker build -t quaymaster .

clean: ## remove build results; keeps ./data and the tools in .cache/bin
	cargo clean
	rm -rf .cache/sample .cache/demo .cache/garage-build
