# Everything a newcomer or CI calls. Needs make, git and a CPython >= 3.12 somewhere; see
# scripts/find-python for where it is looked for.
#
#     make PYTHON=/path/to/python3.12 demo
#
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
export PYTHON DEBIAN_GDAL PYTEST_ARGS UPGRADE
# Meant for other work: they would lead the environments astray.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH

.PHONY: help demo test lint bench requirements clean

help: ## say what there is
	@echo "make demo          copy a real raster's attribute table into a sidecar and back (start here)"
	@echo "make test          linters and all tests; also against Debian's GDAL, where apt-get is"
	@echo "make lint          ruff, mypy --strict, import-linter"
	@echo "make bench         the benchmarks"
	@echo "make requirements  write requirements/*.txt anew (UPGRADE=1: newest versions)"
	@echo "make clean         remove the environments and all that can be made again"
	@echo
	@echo "PYTHON=...         the interpreter for the environments, if the one found doesn't suit"
	@echo "DEBIAN_GDAL=no     make test without the second environment"
	@echo 'PYTEST_ARGS="-k x" arguments for pytest'

demo:
	@scripts/demo

test:
	@scripts/test

lint:
	@python=$$(scripts/find-python) && "$$python" scripts/environment.py test && scripts/lint

bench:
	@python=$$(scripts/find-python) && "$$python" scripts/environment.py test && \
		.venv/bin/python -m tests.benchmarks

requirements:
	@python=$$(scripts/find-python) && "$$python" scripts/environment.py requirements && \
		"$$python" scripts/compile_requirements.py

clean:
	rm -rf .venv .venv-debian-gdal .venv-requirements dist build
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find ratzarr gdalbridge tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
