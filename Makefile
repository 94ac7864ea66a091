# Everything a person or CI runs here. Needs python3 (3.11 or newer), make and, for the dashboard, Node 20 or newer.

PYTHON ?= python3
VENV := .venv/bin
# What a developer's shell may hold; tests must not touch the real thing.
REAL := DATABASE_URL REDIS_URL CACHE_REDIS_URL ANTHROPIC_API_KEY ANTHROPIC_BASE_URL SUPABASE_URL SUPABASE_JWT_SECRET \
	WHATSAPP_APP_SECRETS WHATSAPP_VERIFY_TOKEN

.DEFAULT_GOAL := help
.PHONY: help run demo test lint fmt bench eval migrate env env-example compose-smoke lock clean .local-tools .dev-tools

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name text; do printf '%-20s %s\n' "$$name" "$$text"; done

run: .local-tools ## Start everything on this machine and stay; Ctrl-C stops it (options: args="--help")
	@exec $(VENV)/python -m deploy.local run $(args)

demo: .local-tools ## Send twenty messages through the running stack and show what Claude made of them
	@exec $(VENV)/python -m deploy.local demo $(args)

test: .dev-tools ## Run every test against servers of its own (options: args="tests/unit -k window")
	@exec env $(addprefix -u ,$(REAL)) $(VENV)/python -m pytest $(or $(args),tests)

lint: .dev-tools ## Check style, types and the direction of imports
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports

fmt: .dev-tools ## Format the Python sources
	$(VENV)/ruff check --fix-only --quiet .
	$(VENV)/ruff format .

bench: .dev-tools ## Measure against this machine's limits (one of them: only=NAME)
	@exec env $(addprefix -u ,$(REAL)) $(VENV)/python -m tests.bench $(only)

eval: .dev-tools ## Measure how well Claude understands; compare prompts (options: args="--help")
	@exec $(VENV)/python -m tests.evals $(args)

migrate: .local-tools ## Apply the migrations to the database DATABASE_URL names
	@exec $(VENV)/python -m shared.store.migrate

env: .local-tools ## Write .env for docker compose, with fresh secrets (options: args="--hosted")
	@$(VENV)/python -m deploy.compose.env $(args)

env-example: .local-tools ## Write .env.example anew from the settings classes
	@$(VENV)/python -m deploy.compose.env --example

compose-smoke: .local-tools ## Build the image, run everything in containers, break it, look at it (minutes)
	@exec $(VENV)/python -m deploy.compose.smoke $(args)

lock: .dev-tools ## Resolve pyproject.toml anew into requirements/*.txt
	$(COMPILE) pyproject.toml -o requirements/runtime.txt
	$(COMPILE) --group local pyproject.toml -o requirements/local.txt
	$(COMPILE) --group local --group dev pyproject.toml -o requirements/dev.txt

clean: ## Remove .venv, .local (all data) and caches; refuses while a stack runs
	@$(PYTHON) deploy/local/bootstrap.py clean

COMPILE = $(VENV)/uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--python-version 3.11 --custom-compile-command "make lock"

.local-tools:
	@$(PYTHON) deploy/local/bootstrap.py local

.dev-tools:
	@$(PYTHON) deploy/local/bootstrap.py dev
