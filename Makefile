# Two commands matter: `make demo` and `make test`. Both make their own virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOF ?=
TORCH := torch==2.13.0$(if $(filter Linux,$(shell uname -s)),+cpu)

.PHONY: demo lab test test-sof check radiomics deep bench soak lock clean

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

deep: $(VENV)/.dev  # networks: PyTorch's build for processors; where pip knows only others, it says what to do
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r constraints-deep.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "$(TORCH)" || { \
	  echo "pip finds no $(TORCH). Install it into $(VENV) as pytorch.org says for 'Compute Platform: CPU'"; \
	  echo "(its own package index, with --index-url), or give pip a folder of wheels (PIP_FIND_LINKS); then"; \
	  echo "make deep again. The build with CUDA is for hubs with a GPU, and takes several gigabytes."; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps monai==1.6.1

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
	# What torch needs, without torch; not within constraints-dev.txt, since sympy wants an older mpmath.
	printf 'filelock\nfsspec\nnetworkx\nsafetensors\nsympy\n' | \
	  uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --universal --python-version 3.11 - -o constraints-deep.txt
	uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --universal --python-version 3.11 -c constraints-dev.txt deploy/aggregator/requirements.in \
	  -o deploy/aggregator/constraints.txt

clean:
	rm -rf $(VENV) demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis
