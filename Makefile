# Each target sets up what it needs by itself. A new machine needs Python 3.11, pip, make and apt, nothing else.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test check fast slow readme bench results docs notebooks venv clean

# The main job on the embedded photos; results in runs/demo/.
demo: $(READY)
	$(BIN)/qtable optimize --out runs/demo
	$(BIN)/qtable export runs/demo/tables/001.json --to cjpeg
	@echo "look at runs/demo/front.png; the tables are in runs/demo/tables/; next: $(BIN)/qtable report runs/demo"

# Everything that must hold: style, types, layers, fast tests.
test: check

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --timeout 300 -m "not slow"

fast: $(READY)
	$(BIN)/python -m pytest -n 2 --timeout 300 -m "not slow"

slow: $(READY)
	$(BIN)/python -m pytest -m slow

# Everything that the README tells people to type, as printed, and the wheel in an environment of its own (half an hour).
readme: $(READY)
	$(BIN)/python -m pytest -m slow tests/test_readme_runs.py tests/test_wheel.py

# Speed and quality figures, each with its ratio to the alternative in the same run.
bench: $(READY)
	for name in startup layer kernels rate evaluate cluster compress; do $(BIN)/python -m benchmarks.$$name || exit 1; done

# Everything in results/ but the benchmarks, anew (hours).
results: $(READY)
	bash scripts/results.sh

# The notebooks from top to bottom, with small sizes; the committed files stay as they are (minutes).
notebooks: $(READY)
	QTABLE_FAST=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=300 notebooks

# docs/cli.md and docs/api.md, from the commands and the docstrings; docs/architecture.svg, from the imports.
docs: $(READY)
	$(BIN)/python scripts/write_docs.py
	$(BIN)/python scripts/draw_architecture.py

venv: $(READY)

$(READY): pyproject.toml constraints.txt scripts/system.sh
	bash scripts/system.sh
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --requirement requirements-dev.txt
	touch $(READY)

clean:
	rm -rf .venv dist
