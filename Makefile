# Two commands matter: `make demo` and `make test`. Both make their own virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOF ?=

.PHONY: demo lab test test-sof check radiomics bench soak lock clean

$(BIN)/flute: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .

$(VENV)/.dev: $(BIN)/flute constraints-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r constraints-dev.txt
	touch $@

demo: $(BIN)/flute
	$(BIN)/flute demo

lab: $(VENV)/.dev  # JupyterLab with FLUTE's notebooks
	$(BIN)/flute lab

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

radiomics: $(VENV)/.dev  # source only: needs a compiler, so `make test` does without where it is missing
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r constraints-radiomics.txt

test: check  # what starts federations and wants the machine for itself comes last, one after the other
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --ignore=tests/federation --ignore=tests/adversary
	$(BIN)/python -m pytest tests/federation tests/adversary

test-sof: $(VENV)/.dev  # the SQL-on-FHIR suite's own files: SOF=DIR with its tests/ in it
	@test -d "$(SOF)" || { echo "Say where the suite lies: make test-sof SOF=DIR"; exit 2; }
	FLUTE_SOF="$(abspath $(SOF))" $(BIN)/python -m pytest -q tests/sof

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/all.py --write docs/benchmarks.md

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m soak --timeout 3600

lock:  # no lock file records where packages come from
	uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --universal --python-version 3.11 --extra dev pyproject.toml -o constraints-dev.txt
	uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --universal --python-version 3.11 --extra data -c constraints-dev.txt pyproject.toml -o constraints.txt
	uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --universal --python-version 3.11 --extra radiomics -c constraints-dev.txt pyproject.toml \
	  -o constraints-radiomics.txt
	uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --universal --python-version 3.11 -c constraints-dev.txt deploy/aggregator/requirements.in \
	  -o deploy/aggregator/constraints.txt

clean:
	rm -rf $(VENV) demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis
