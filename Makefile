# Shortcuts; README.md has the same as plain pip and gankit commands.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m

.PHONY: demo newcomer test test-slow bench bench-gpu check docs dist clean

demo: .venv/.installed
	$(RUN) gankit demo --out runs/demo

# A newcomer's first hour, from a fresh clone to two studies, with the time of each stage.
newcomer: .venv/.installed
	$(BIN)/python tests/first_hour.py --clone

# Several processes load the same files: what one of them has compiled is kept for the others and for the next time.
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/.installed-test
	$(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder

# Beside the trainings that take minutes: the trackers' own packages, the wheel and the source archive without the
# repository, every other Python that is here, with the newest and the oldest dependencies, and published vulnerabilities
# of what is installed.
test-slow: .venv/.installed-test .venv/.installed-trackers
	$(RUN) pytest -m slow --timeout 3600
	$(RUN) pytest tests/test_examples.py -k trackers
	sh tests/without_repository.sh
	sh tests/other_pythons.sh
	$(BIN)/python tests/audit.py

bench: .venv/.installed-test .bench/.installed
	OMP_NUM_THREADS=2 $(BIN)/python tests/benchmarks/metrics.py
	OMP_NUM_THREADS=2 $(BIN)/python tests/benchmarks/speed.py

# On a machine with one GPU; at most nine minutes.
bench-gpu: .venv/.installed .bench/.installed
	$(BIN)/python tests/benchmarks/gpu.py

check: .venv/.installed-test
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy

docs: .venv/.installed-test
	$(BIN)/python docs/quotes.py
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet --site-dir site

# The wheels and source archives of gankit and its plug-ins. To upload them: .venv/bin/twine upload dist/*
dist: .venv/.installed-dist
	rm -rf dist
	for project in . plugins/*; do $(RUN) build --outdir dist $$project || exit 1; done
	$(RUN) twine check --strict dist/*

clean:
	rm -rf .venv .bench site build dist

# One stamp for each set of extras: pip runs again only when pyproject.toml changes.
.venv/.python:
	$(PYTHON) -m venv .venv
	touch $@

.venv/.installed: .venv/.python pyproject.toml
	$(RUN) pip install --quiet --editable '.[offline]'
	touch $@

.venv/.installed-test: .venv/.installed
	$(RUN) pip install --quiet --editable '.[test,offline,docs]'
	touch $@

.venv/.installed-trackers: .venv/.installed-test
	$(RUN) pip install --quiet --editable '.[trackers]'
	touch $@

.venv/.installed-dist: .venv/.installed
	$(RUN) pip install --quiet --editable '.[dist]'
	touch $@

# The libraries that training is measured beside, without what they ask for: old versions of torch and the like.
.bench/.installed: .venv/.installed-test
	$(RUN) pip install --quiet --no-deps --upgrade --target .bench torch-mimicry==0.1.16 torchgan==0.1.0 vegans==0.4.0
	touch $@
