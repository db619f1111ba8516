# The newcomer's commands. Everything sets itself up: Rust, make and a CPython 3.11-3.13 are enough.

SHELL := /bin/sh
VENV := .venv
PYTHON := $(VENV)/bin/python
# pytest arguments, for example: make test-python ARGS="-k admin -x"
ARGS :=
TESTS := tests/python
# What test-pythons makes, and with which interpreters: --each, or the --others than the newest.
WHAT := test-python test-django
WHICH := --each
setup = @python=$$(scripts/python) && "$$python" scripts/environment.py --venv $(VENV)

.PHONY: help
help: ## Show these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

.PHONY: demo
demo: ## Deliver 1,000 orders at once on one thread, then keep the site up
	$(setup) runtime
	@$(PYTHON) examples/food_delivery/demo.py $(ARGS)

.PHONY: test
test: test-rust test-python ## Run the Rust and the Python tests

.PHONY: test-rust
test-rust: ## Run the Rust tests
	cargo test --workspace --exclude balrog-python --all-features --locked

.PHONY: test-python
test-python: ## Run the Python tests, Chromium's included
	$(setup) runtime test
	@$(PYTHON) scripts/chromium.py --install
	$(PYTHON) -m pytest $(TESTS) $(ARGS)

.PHONY: test-smoke
test-smoke: ## Run the quick part of the Python tests: hub, runtime, server, the example's answers
	$(setup) runtime test
	$(PYTHON) -m pytest $(addprefix tests/python/,hub runtime server django_engine food_delivery/test_same_answers.py) $(ARGS)

.PHONY: test-pythons
test-pythons: ## Run the Python and Django's tests on every CPython 3.11-3.13 found; WHAT=test-smoke less
	@scripts/python $(WHICH) | while read -r version python; do \
		echo "== CPython $$version, $$python"; \
		BALROG_PYTHON="$$python" $(MAKE) --no-print-directory $(WHAT) VENV=.venv-$$version </dev/null || exit 1; \
	done

.PHONY: test-django
test-django: ## Run Django's own tests on balrog.django.postgresql
	$(setup) runtime test suite
	$(PYTHON) tests/python/django_engine/run_django_suite.py $(ARGS)

.PHONY: soak
soak: ## Rust servers and clients under faults for SOAK_SECONDS (600); ARGS="native tokio" for some runtimes
	cargo run --release --locked --quiet --package balrog --all-features --example soak -- $(ARGS)

.PHONY: fuzz
fuzz: ## Fuzz each target for FUZZ_SECONDS (60); ARGS="h1_server ..." for some
	scripts/fuzz $(ARGS)

.PHONY: coverage
coverage: ## Lines and branches of balrog-proto that its tests reach; ARGS=--html for pages
	scripts/coverage $(ARGS)

.PHONY: mutants
mutants: ## Break framing, masks, limits and log-in of balrog-proto in small ways: do its tests see it?
	scripts/mutants $(ARGS)

.PHONY: miri
miri: ## Run balrog-proto's own tests under Miri, where rustup has it
	scripts/miri $(ARGS)

.PHONY: loom
loom: ## Try every order of what threads do to the list through which they wake tasks
	RUSTFLAGS="--cfg loom" CARGO_PROFILE_RELEASE_LTO=off cargo test --release --locked --package balrog-sched --lib --target-dir target/loom models $(ARGS)

.PHONY: wasm
wasm: ## Prove that balrog-proto asks its host for nothing
	@python=$$(scripts/python) && "$$python" scripts/wasm_gate.py

.PHONY: test-requests
test-requests: ## Run requests' own tests through balrog.requests
	$(setup) runtime test requests-suite
	$(PYTHON) tests/python/client/run_requests_suite.py $(ARGS)

.PHONY: autobahn
autobahn: ## Run all 517 cases of the Autobahn test suite against both roles of WebSocket (ARGS='6.*' for some)
	$(setup) --no-build test
	$(PYTHON) scripts/autobahn.py $(ARGS)

.PHONY: bench-food
bench-food: ## The example's view beside gevent, threads and async views
	$(setup) runtime
	$(setup) --venv .venv-bench --no-build runtime bench
	$(PYTHON) bench/food.py $(ARGS)

.PHONY: bench-plaintext
bench-plaintext: ## A WSGI hello beside granian, gunicorn, bjoern, fastwsgi, uvicorn
	$(setup) runtime
	$(setup) --venv .venv-bench --no-build runtime bench
	$(PYTHON) bench/plaintext.py $(ARGS)

.PHONY: bench-tasks
bench-tasks: ## What a task costs beside gevent, asyncio, uvloop and the bridges of SQLAlchemy and greenback
	$(setup) runtime
	$(setup) --venv .venv-bench --no-build runtime bench
	PYTHONPATH=bindings/python/python .venv-bench/bin/python bench/tasks.py $(ARGS)

.PHONY: bench-proto
bench-proto: ## The protocol machines beside the limit of each path
	cargo run --release --locked --quiet --manifest-path bench/proto/Cargo.toml -- $(ARGS)

.PHONY: bench-proto-gate
bench-proto-gate: ## Compare instruction counts of the hot paths with those kept (ARGS=--update keeps new ones)
	python3 scripts/bench_proto_gate.py $(ARGS)

.PHONY: bench-rust
bench-rust: ## The Rust API beside tokio, may, hyper, may_minihttp, fastwebsockets, tokio-postgres; ARGS="--only client"
	python3 bench/rust.py $(ARGS)

.PHONY: bench-requests
bench-requests: ## One POST by requests on balrog, beside urllib3, httpx, aiohttp
	$(setup) runtime
	$(setup) --venv .venv-bench --no-build runtime bench
	$(PYTHON) bench/requests_post.py $(ARGS)

.PHONY: lint
lint: ## Check formatting, clippy, ruff, pyright, and that the stubs say what the extension has
	$(setup) runtime test lint
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo fmt --manifest-path tests/wasm_gate/Cargo.toml --check
	PYO3_PYTHON=$(CURDIR)/$(PYTHON) cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright
	MYPYPATH=bindings/python/python $(PYTHON) -m mypy.stubtest --concise balrog._balrog

.PHONY: format
format: ## Format Rust and Python
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml
	cargo fmt --manifest-path tests/wasm_gate/Cargo.toml
	$(setup) --no-build lint
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

.PHONY: docs
docs: ## Build the Rust documentation, warnings denied
	$(setup) --no-build build
	PYO3_PYTHON=$(CURDIR)/$(PYTHON) RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --locked

.PHONY: clean
clean: ## Remove everything that was built or set up
	cargo clean
	rm -rf .venv .venv-bench* .run bench/results .ruff_cache
	find bindings/python/python -name '_balrog*.so' -delete
