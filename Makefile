# Needs make and Python 3.11, 3.12 or 3.13; everything else goes into .venv.
#   make demo PYTHON=python3.12   chooses another interpreter
#   make demo UV=                 installs with pip even where uv is on the PATH

PYTHON ?= python3
UV ?= $(shell command -v uv 2>/dev/null)

VENV := .venv
INPUTS := pyproject.toml constraints.txt

export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.DEFAULT_GOAL := help
.PHONY: help demo test clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo  ## Run the flights pipeline on data that comes with the demo extra
	$(VENV)/bin/python deployments/fetch_flights.py
	$(VENV)/bin/siftline run deployments/flights.yaml

test: $(VENV)/.test  ## Run every check: style, types, import contracts, tests
	scripts/check

clean:  ## Remove .venv, .venv-lowest, caches and build output (data/, results/ and .siftline/ stay)
	rm -rf $(VENV) $(VENV)-lowest build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache \
		.mypy_cache .pytest_cache .ruff_cache
	find src flows tasks tests deployments -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The stamps live inside .venv: removing it is all it takes to start afresh.

define install
	$(if $(UV),"$(UV)" pip install --quiet --python $(VENV)/bin/python -c constraints.txt -e '.[$(1)]' ||) \
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]'
endef

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
		echo "Siftline needs Python 3.11 to 3.13, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1);" \
			"try: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.demo: $(INPUTS) | $(VENV)/.created
	$(call install,demo)
	@touch $@

$(VENV)/.test: $(INPUTS) | $(VENV)/.created
	$(call install,demo$(comma)test)
	@touch $@ $(VENV)/.demo

comma := ,
