# make demo    simulate particles, reconstruct them, compare with the truth (demo/)
# make test    lint, type check, the documents and the quick tests
# make docs    the documents as a site, in site/
# make clean   remove everything the other targets made
#
# TORCH chooses the PyTorch to install, PYTHON the interpreter: make demo PYTHON=python3.12 TORCH="torch>=2.4"

PYTHON ?= python3
TORCH ?= torch==2.13.0

BIN := .venv/bin
RUN_STAMP := .venv/.installed
DEV_STAMP := .venv/.installed-dev

.PHONY: demo test test-slow lint docs clean
.DELETE_ON_ERROR:

demo: $(RUN_STAMP)
	rm -rf demo
	$(BIN)/cryospin simulate --source phantom --out demo/data --n 3000 --box 64 --pixel-size 5 --snr 0.1 --seed 1
	$(BIN)/cryospin reconstruct demo/data/particles.star --out demo/run
	$(BIN)/cryospin evaluate demo/run --truth-map demo/data/truth.mrc --truth-poses demo/data/truth.star

# A file's tests share what they made, so a file stays with one process.
test: lint docs
	$(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: $(DEV_STAMP)
	$(BIN)/python -m pytest -q -m slow

lint: $(DEV_STAMP)
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/mypy

docs: $(DEV_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf .venv demo site build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv .venv

# PyTorch comes first and on its own, so that a build chosen by hand is kept.
$(RUN_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(DEV_STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet -e ".[test,dev,docs]"
	touch $@
