# Everything a person or CI does goes through here. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export TRACER_CACHE ?= $(CURDIR)/.cache

ALPHA ?= 0.95
DEMO_FLAGS ?=
BENCH_FLAGS ?=
PYTEST_FLAGS ?=
SOURCES := services shared tests deploy benchmarks

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# --- setup -----------------------------------------------------------------------------------
$(VENV)/.ready: requirements.lock pyproject.toml
	@echo "setting up $(VENV) (about 800 MB, a minute or two) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

.cache/encoder/encoder.json: | $(VENV)/.ready
	@$(BIN)/tracerctl encoder export --out .cache/encoder

.PHONY: setup
setup: $(VENV)/.ready .cache/encoder/encoder.json ## Install everything from the lock file, build the encoder

.PHONY: lock
lock: $(VENV)/.ready ## Renew requirements.lock from pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --no-emit-index-url \
		--extra dev --no-emit-package tracer-kafka --quiet --upgrade -o requirements.lock

WEB := shared/web
.PHONY: vendor
vendor: ## Renew shared/web/vendor from shared/web/package.json (needs npm)
	@cd $(WEB) && npm install --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund --silent
	@mkdir -p $(WEB)/vendor/licenses
	@cd $(WEB)/node_modules && cp echarts/dist/echarts.min.js htmx.org/dist/htmx.min.js \
		@picocss/pico/css/pico.min.css ../vendor/
	@cd $(WEB)/node_modules && cp echarts/LICENSE ../vendor/licenses/echarts \
		&& cp echarts/NOTICE ../vendor/licenses/echarts-notice \
		&& cp htmx.org/LICENSE ../vendor/licenses/htmx && cp @picocss/pico/LICENSE.md ../vendor/licenses/pico

# --- the two commands ------------------------------------------------------------------------
.PHONY: demo
demo: setup ## The main job on an embedded broker and Redis; DATA=file.jsonl ALPHA=0.95 CONSOLE=1
	@$(BIN)/tracerctl demo --alpha $(ALPHA) $(if $(DATA),--data $(DATA)) $(if $(CONSOLE),--console) $(DEMO_FLAGS)

REAL_SERVERS := $(BIN)/python -m pytest tests/integration tests/e2e tests/faults \
	-o faulthandler_timeout=600
ONCE_MORE := "once more, what failed: a test that passes now depends on the machine's load, and wants mending"

.PHONY: test
test: setup lint types layers ## Lint, types, layers and every test (real Kafka and Redis included)
	@$(BIN)/python -m pytest tests/unit tests/contract tests/statistical tests/docs -n 2 $(PYTEST_FLAGS)
	@$(REAL_SERVERS) --durations=15 $(PYTEST_FLAGS) || { \
		echo $(ONCE_MORE); $(REAL_SERVERS) --last-failed $(PYTEST_FLAGS); }
	@$(MAKE) --no-print-directory test-browser || { \
		echo $(ONCE_MORE); $(MAKE) --no-print-directory test-browser PYTEST_FLAGS=--last-failed; }

# --- parts of it -----------------------------------------------------------------------------
.PHONY: lint
lint: $(VENV)/.ready ## ruff: lint and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: format
format: $(VENV)/.ready ## ruff: rewrite
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: types
types: $(VENV)/.ready ## mypy, strict
	@$(BIN)/mypy

.PHONY: layers
layers: $(VENV)/.ready ## import-linter: DESIGN's arrows
	@$(BIN)/lint-imports --no-cache >/tmp/lint-imports.$$$$ || { cat /tmp/lint-imports.$$$$; exit 1; }; rm -f /tmp/lint-imports.$$$$

.PHONY: test-quick
test-quick: setup ## Unit, contract and statistical tests only (no Kafka)
	@$(BIN)/python -m pytest tests/unit tests/contract tests/statistical -n 2 $(PYTEST_FLAGS)

CHROMIUM ?= /usr/bin/chromium
export TRACER_CHROMIUM ?= $(CHROMIUM)

.PHONY: chromium
chromium: ## Debian's Chromium for the browser tests, installed where it is missing and possible
	@test -x $(CHROMIUM) || { \
		command -v apt-get >/dev/null && test "$$(id -u)" = 0 \
		&& apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
		|| echo "no $(CHROMIUM), and no way to install it here: the browser tests are skipped"

.PHONY: test-browser
test-browser: setup chromium ## The console in a real browser; SCREENSHOTS=docs/images renews the pictures
	@$(if $(SCREENSHOTS),TRACER_SCREENSHOTS=$(SCREENSHOTS)) \
		$(BIN)/python -m pytest tests/browser --durations=5 $(PYTEST_FLAGS)

.PHONY: audit
audit: $(VENV)/.ready ## SBOM and licences (offline), known vulnerabilities; ends with 3 when unchecked
	@$(BIN)/python deploy/audit/audit.py

.PHONY: fuzz
fuzz: setup ## Coverage-guided fuzzing of what is read from topics, registry and logs (SECONDS=60 each)
	@for target in codecs events graphs registry sources; do \
		PYTHONPATH=.:tests $(BIN)/python -m tests.fuzzing.run $$target \
			--seconds $(or $(SECONDS),60) || exit 1; done

.PHONY: stat
stat: setup ## The statistical tests with many repeats
	@TRACER_REPEATS=5000 $(BIN)/python -m pytest tests/statistical --timeout=3600 $(PYTEST_FLAGS)

.PHONY: test-faults
test-faults: setup ## Seeded schedules of faults on three brokers (SCHEDULES=20 SEED=1 FIRST=0 MINUTES=180)
	@$(BIN)/python -m tests.faults.run --schedules $(or $(SCHEDULES),20) --seed $(or $(SEED),1) \
		--first $(or $(FIRST),0) --minutes $(or $(MINUTES),180) $(if $(REPORT),--report)

.PHONY: test-load
test-load: setup ## An hour at 70% of capacity, then three times it (DURATION=3600 OVERLOAD=300)
	@$(BIN)/python -m tests.faults.load --duration $(or $(DURATION),3600) \
		--overload $(or $(OVERLOAD),300) $(if $(REPORT),--report)

# --- a real broker ---------------------------------------------------------------------------
KAFKA_PORT ?= 9092

.PHONY: kafka
kafka: $(VENV)/.ready ## Fetch and run Apache Kafka on this machine (Java 17, Maven; no Docker)
	@$(BIN)/python deploy/kafka/local_kafka.py run --port $(KAFKA_PORT) --data .cache/kafka/data

.PHONY: acceptance
acceptance: setup ## Issue 2's acceptance: real data (DATA_DIR), Apache Kafka, two routers, kill -9
	@$(BIN)/python -m benchmarks.acceptance --data-dir $(DATA_DIR)

DATA_DIR ?= ../shared/data

.PHONY: bench-peer
bench-peer: setup ## The reference implementation beside this one (SEEDS=10); writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks.peer --data $(DATA_DIR)/banking77.jsonl --seeds $(or $(SEEDS),10)

.PHONY: bench-router
bench-router: setup ## Issue 5's targets: text in, embeddings in, Kafka, scale-out; writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks.router --data-dir $(DATA_DIR) $(BENCH_FLAGS)

.PHONY: bench-options
bench-options: setup ## ONNX Runtime's options on this CPU, float32 and int8; writes docs/router.md
	@$(BIN)/python -m benchmarks.routing.options --data-dir $(DATA_DIR)

.PHONY: swap-test
swap-test: setup ## 100 swaps in 60 s of traffic on Apache Kafka: nothing lost, p99 and memory
	@$(BIN)/python -m benchmarks.routing.swaps --data-dir $(DATA_DIR)

.PHONY: bench-official
bench-official: setup ## Coverage and agreement on the published splits; writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks.official --data-dir $(DATA_DIR)

.PHONY: bench-gate
bench-gate: setup ## The certificate on random splits of real data (SPLITS=20); writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks.gate --data-dir $(DATA_DIR) --splits $(or $(SPLITS),20)

.PHONY: bench-validity
bench-validity: setup ## How often certificates are wrong in simulated worlds; writes docs/gate.md
	@TRACER_REPEATS=$(or $(REPEATS),1000) PYTHONPATH=.:tests:tests/statistical \
		$(BIN)/python tests/statistical/table.py

.PHONY: bench-live
bench-live: setup ## The live certificate on simulated audits: false trips, delays, probations
	@$(BIN)/python -m benchmarks.live

.PHONY: bench-flywheel
bench-flywheel: setup ## Five days under three regimes of observation (SEEDS=3); writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks.flywheel --data-dir $(DATA_DIR) --seeds $(or $(SEEDS),3)

.PHONY: bench-incremental
bench-incremental: setup ## Full and incremental refits, five days of Banking77 (SEEDS=3); writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks.incremental --data-dir $(DATA_DIR) --seeds $(or $(SEEDS),3)

.PHONY: bench-drift
bench-drift: setup ## What users see when the teacher or the traffic changes (SEEDS=3); writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks.drift --data-dir $(DATA_DIR) --seeds $(or $(SEEDS),3)

.PHONY: bench-forecast
bench-forecast: setup ## Whether the learning curves' forecasts came true (SEEDS=3); writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks.forecast --data-dir $(DATA_DIR) --seeds $(or $(SEEDS),3)

.PHONY: bench-scale
bench-scale: setup ## A fit on 10k, 100k and 1M synthetic traces: time and memory; writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks.scale

.PHONY: bench-fanout
bench-fanout: setup ## 1,000 simulated routers over 10,000 tasks on one Redis; writes docs/benchmarks.md, docs/sizing.md
	@$(BIN)/python -m benchmarks.fanout --data $(DATA_DIR)/banking77.jsonl

.PHONY: ablation
ablation: setup ## What each feature of the acceptor is worth; writes docs/ablation.md
	@$(BIN)/python -m benchmarks.ablation --data-dir $(DATA_DIR)

.PHONY: bench-limits
bench-limits: setup ## What keeps certified coverage from being higher; writes docs/gate.md
	@$(BIN)/python -m benchmarks.limits --data-dir $(DATA_DIR)

.PHONY: bench-console
bench-console: setup ## The console's pages with 50 tasks and 200 versions; writes docs/console.md
	@$(BIN)/python -m benchmarks.console

.PHONY: topics
topics: $(VENV)/.ready ## Create the topics of schemas/topics on TRACER_BOOTSTRAP_SERVERS
	@$(BIN)/tracerctl topics create

.PHONY: schemas
schemas: $(VENV)/.ready ## Renew schemas/asyncapi.yaml and the schema of reports
	@$(BIN)/python -m shared.contracts.asyncapi
	@$(BIN)/python -m shared.contracts.report_schema

.PHONY: docs
docs: $(VENV)/.ready ## The documentation as a site in build/site, without warnings
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "build/site/index.html"

.PHONY: test-docs
test-docs: setup ## README's and tutorial's commands, run; the site, built
	@$(BIN)/python -m pytest tests/docs tests/contract/test_docs.py -n 2 $(PYTEST_FLAGS)

.PHONY: helm-check
helm-check: $(VENV)/.ready ## Render the Helm chart and check it against Kubernetes' schemas (needs Go)
	@$(BIN)/python -m deploy.helm.check

.PHONY: clean
clean: ## Remove what the demo and the tests made (not the caches)
	@rm -rf .demo .e2e .pytest_cache .mypy_cache .ruff_cache build dist
