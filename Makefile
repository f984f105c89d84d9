# make demo   the whole way on a synthetic data set: X-rays, cache, single-head and multi-head training, a fold of a
#             model that learns lines, metrics, predictions of new X-rays with heatmaps, lines and measurements
# make test   lint, types, the documentation and every test; those of a GPU after the others, in a process of their own
# make quick  the same without the tests marked slow
# make bench  speed and memory beside their references as one table, benchmarks/results/<host>.json and
#             docs/performance.md; takes long; HOST=name names the results
# make stress kills the building of a cache, training and ranks at random moments, breaks thousands of images, writes as
#             ONNX the families that the tests leave out; takes long
# make docs   the documentation as a site, docs/_build/index.html; a dead link or a warning fails
# make lint   lint and types only

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --quiet

.PHONY: demo test quick lint docs bench stress
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/python -m catheters.synthetic dataset/sample
	$(BIN)/python preproc_npy.py --config configs/sample.py --show 12
	$(BIN)/python train.py --config configs/sample.py
	$(BIN)/python multi_train.py --config configs/sample_multi.py
	$(BIN)/python train.py --config configs/sample_lines.py folds=[0]
	$(BIN)/python evaluate.py saved_models/sample saved_models/sample_multi
	$(BIN)/python evaluate.py saved_models/sample_lines
	$(BIN)/python predict.py --model saved_models/sample_multi dataset/sample/test --worklist --heatmaps saved_models/heatmaps --out saved_models/predictions.csv
	$(BIN)/python predict.py --model saved_models/sample_lines dataset/sample/test --worklist --lines saved_models/lines --spacing dataset/sample/spacing.csv --out saved_models/measured.csv

test: lint docs
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not gpu"

quick: lint
	$(BIN)/python -m pytest -m "gpu and not slow"
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed-dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build
	@echo 'docs/_build/index.html'

bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/bench.py $(if $(HOST),--host $(HOST))

stress: $(VENV)/installed-dev
	$(BIN)/python tests/stress/kill_cache.py
	$(BIN)/python tests/stress/kill_training.py
	$(BIN)/python tests/stress/kill_ranks.py
	$(BIN)/python -m catheters.synthetic dataset/sample
	$(BIN)/python tests/stress/fuzz_reader.py dataset/sample
	$(BIN)/python tests/stress/export_families.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	    { echo 'making $(VENV) failed; Debian and Ubuntu have venv in a package of its own: python3-venv' >&2; \
	      rm -rf $(VENV); exit 1; }

$(VENV)/installed: requirements.txt pyproject.toml | $(BIN)/python
	@echo 'installing requirements.txt into $(VENV) (minutes the first time, several GB with the CUDA libraries)'
	$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	@echo 'installing requirements-dev.txt into $(VENV)'
	$(INSTALL) -r requirements-dev.txt
	@touch $@
