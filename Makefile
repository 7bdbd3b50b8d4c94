# make demo | test | lint | docs | bench | changelog | clean. What the targets do stands in noxfile.py; this file only
# brings nox: into .venv, once. Needs Python 3.10 or newer with venv, git, make, and on the first run a package index.

PYTHON ?= python3
# More arguments for the session: make test ARGS="tests/unit -k gates"
ARGS ?=

NOX := .venv/bin/python -m nox
with_args = $(if $(strip $(ARGS)),-- $(ARGS))

# What a personal setting would break: pip's --user inside a virtual environment, foreign modules, a Python that does
# not look into the current folder.
export PIP_USER := 0
unexport PYTHONHOME PYTHONPATH PYTHONSAFEPATH

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench changelog clean nox

help:
	@echo 'make demo       a whole Salt site on this machine; a database is killed and healed before your eyes'
	@echo 'make test       unit, functional and integration tests'
	@echo 'make lint       formatters, linters and type checks, by pre-commit'
	@echo 'make docs       the documentation, into docs/_build/html'
	@echo 'make bench      measurements on the same site'
	@echo 'make changelog  what the next release notes would say'
	@echo 'make clean      everything away that these have made, except artifacts/'
	@echo
	@echo 'PYTHON=python3.12 chooses the interpreter, ARGS="…" is passed on: make test ARGS="tests/unit -x"'

demo test lint docs bench changelog: nox
	@$(NOX) -s $(if $(filter test,$@),tests,$@) $(with_args)

nox:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || \
	  { echo 'make: there is no $(PYTHON); install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3' >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "make: Python 3.10 or newer is needed, and $(PYTHON) is $$("$(PYTHON)" -V 2>&1); name another: make PYTHON=python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo 'make: $(PYTHON) lacks venv or ensurepip; install them (on Debian and Ubuntu: apt install python3-venv)' >&2; exit 1; }
	@"$(PYTHON)" -I tests/lab/place.py $(MAKECMDGOALS)
	@version=$$("$(PYTHON)" -c 'import sys; print(*sys.version_info[:2], sep=".")'); \
	if ! .venv/bin/python -c "import pip, sys; sys.exit('$$version' != '%d.%d' % sys.version_info[:2])" 2>/dev/null; then \
	  echo "Making .venv with Python $$version"; \
	  "$(PYTHON)" -m venv --clear .venv || exit 1; \
	fi; \
	if ! $(NOX) --version >/dev/null 2>&1; then \
	  echo 'Installing nox into .venv'; \
	  .venv/bin/python -m pip install --quiet --disable-pip-version-check 'nox>=2024.4.15' || exit 1; \
	fi

clean:
	rm -rf .venv .nox build dist docs/_build docs/reference/_*.md src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	find src tests docs reactor formula -name __pycache__ -type d -prune -exec rm -rf {} +
