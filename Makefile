# Everyday commands. The first one that needs it creates .venv; after that they start at once.
# Another Python:      make demo PYTHON=python3.12
# Options for a tool:  make test ARGS='-m "not slow"'

PYTHON ?= python3
ARGS   ?=

VENV  := .venv
BIN   := $(VENV)/bin
COLAB := .venv-colab
# One release for all four Pythons; not the newest, so that a move to another is a decision.
TORCH := 2.13.0

.DEFAULT_GOAL := help
.PHONY: help demo lab test test-colab lint format notebooks benchmark pocket translator site wheel constraints clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-12s %s\n", $$1, $$2 }'

demo: $(VENV)/demo.stamp  ## open the explorer in a browser
	$(BIN)/modtf demo $(ARGS)

lab: $(VENV)/demo.stamp  ## open the course in JupyterLab
	$(BIN)/jupyter lab $(ARGS) notebooks/0_quickstart.ipynb

# Two processes share the files of tests; small models gain nothing from more threads.
PYTEST := python -m pytest -n 2 --dist loadfile

test: $(VENV)/dev.stamp  ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/$(PYTEST) $(ARGS)

# Colab's versions, but the Python that PYTHON names (Colab's is 3.13). No page is served there, so no browser tests.
test-colab: $(COLAB)/test.stamp  ## run the tests with the versions that Google Colab has
	OMP_NUM_THREADS=1 $(COLAB)/bin/$(PYTEST) -m "not browser" $(ARGS)

lint: $(VENV)/dev.stamp  ## check formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev.stamp  ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Content decides, not file times: each notebook is written anew from its .py source, then run. ARGS='2 3' builds some.
notebooks: $(VENV)/dev.stamp  ## run the notebooks and store their outputs (needs Chromium for the figures)
	$(BIN)/python notebooks/build.py $(ARGS)

# The folder of the model's data (CONTRIBUTING.md says which files). Left out: what MODTF_E2E_DIR or MODTF_TATOEBA_DIR names.
DATA  ?=
MODEL ?= pocket

benchmark: $(VENV)/dev.stamp  ## measure the tables in docs/results.md of MODEL=pocket or translator, on the data in DATA=folder
	$(BIN)/python benchmarks/table.py --model $(MODEL) --data "$(DATA)" $(ARGS)

# Pocket: about 3 hours on two cores; an interrupted run goes on where it was. One process for each core, averaged gradients.
PROCESSES ?= 2
TRAIN     := OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node $(PROCESSES) -m modtf.cli train

pocket: $(VENV)/dev.stamp  ## train the bundled pocket anew, from the E2E data in DATA=folder
	$(TRAIN) original --task e2e --data "$(DATA)" --output build/plain
	$(TRAIN) original --task e2e --data "$(DATA)" --begin-with build/plain --dropout 0.1 --steps 700 --learning-rate 4e-3 --seed 1 --output build/original
	$(TRAIN) kit --task e2e --data "$(DATA)" --original build/original --output build/plain-kit
	$(TRAIN) kit --task e2e --original build/original --begin-with build/plain-kit --without-data --pairs 24000 --faultless \
		--labels-weight 1 --logits-weight 1 --hidden-weight 0 --whole 0.5 --matched 0.6 --steps 1500 --learning-rate 2.5e-3 \
		--adamw-learning-rate 5e-4 --seed 2 --output build/kit
	$(BIN)/python benchmarks/bundle.py pocket --original build/plain build/original --kit build/plain-kit build/kit

translator: $(VENV)/dev.stamp  ## train the bundled translator anew, from the Tatoeba data in DATA=folder
	$(TRAIN) original --task translation --data "$(DATA)" --output build/translator/plain
	$(TRAIN) original --task translation --data "$(DATA)" --begin-with build/translator/plain --steps 1100 --learning-rate 1.4e-3 \
		--adamw-learning-rate 7e-4 --seed 1 --output build/translator/original
	$(TRAIN) kit --task translation --data "$(DATA)" --original build/translator/original --granularities 2 3 6 \
		--assemblies-per-step 4 --dropout 0 --output build/translator/plain-kit
	$(TRAIN) kit --task translation --data "$(DATA)" --original build/translator/original --granularities 2 3 6 \
		--assemblies-per-step 4 --dropout 0 --begin-with build/translator/plain-kit --steps 1000 --learning-rate 1.2e-3 \
		--adamw-learning-rate 6e-4 --seed 1 --coarse-at 0 --full-at 1 --replacing-probability 0.3 --mixtures 0.4 --whole 0.3 \
		--output build/translator/kit
	$(BIN)/python benchmarks/bundle.py translator --original build/translator/plain build/translator/original \
		--kit build/translator/plain-kit build/translator/kit --data "$(DATA)"

site: $(VENV)/dev.stamp  ## build the site into build/site-html/html: README, course, API; nothing is run
	$(BIN)/sphinx-build -M html . build/site-html --conf-dir docs --fresh-env --write-all --fail-on-warning --keep-going $(ARGS)

wheel: $(VENV)/dev.stamp  ## build the package into dist/
	$(BIN)/python -m build --wheel --no-isolation

# CUDA packages are dropped: torch's own metadata pins them where they are wanted.
constraints:  ## write constraints.txt anew (needs uv)
	sed -n '/^#/p' constraints.txt > constraints.new
	echo 'torch==$(TORCH)' | uv pip compile pyproject.toml --extra dev --constraint - --universal --python-version 3.10 \
		--upgrade --quiet --no-header --no-annotate | grep -vE '^(nvidia-|cuda-|triton)' >> constraints.new
	mv constraints.new constraints.txt

clean:  ## remove the environments and everything else that was made
	rm -rf $(VENV) $(COLAB) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. A stamp is newer than the files that decided what was installed, so a change installs again.
$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[demo]'
	@touch $@

# "dev" holds "demo", so after this `make demo` has nothing to install.
$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $(VENV)/demo.stamp $@

# First what Colab has; then a look at what `pip install modtf` would do to it, with nothing to hold pip back; then the tests' tools.
$(COLAB)/test.stamp: pyproject.toml constraints.txt constraints-colab.txt | $(COLAB)/bin/python
	awk -F '==' 'FNR == NR { colab[$$1] } FNR == NR || !($$1 in colab)' constraints-colab.txt constraints.txt > $(COLAB)/constraints.txt
	$(COLAB)/bin/python -m pip install --constraint $(COLAB)/constraints.txt --requirement constraints-colab.txt torch
	$(COLAB)/bin/python -m pip install --dry-run . > $(COLAB)/modtf.txt
	@! grep -E '^Would install.* (ipykernel|ipython|ipywidgets|numpy|pandas|torch|transformers)-[0-9]' $(COLAB)/modtf.txt || { \
		echo "Installing modtf must not change what Colab has, see constraints-colab.txt."; \
		exit 1; }
	$(COLAB)/bin/python -m pip install --constraint $(COLAB)/constraints.txt --editable '.[test]'
	@touch $@

$(BIN)/python $(COLAB)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "modtf's environment needs Python 3.10 to 3.13, but $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
		echo "Name one that fits, for example: make $(MAKECMDGOALS) PYTHON=python3.12"; \
		exit 1; }
	@$(PYTHON) -m venv $(@:/bin/python=) || { rm -rf $(@:/bin/python=); echo "No environment could be made; on Debian: apt install python3-venv"; exit 1; }
