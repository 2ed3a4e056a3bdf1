# Everything a newcomer or CI calls. Needs make, git and a CPython >= 3.12 somewhere; see
# scripts/find-python for where it is looked for.
#
#     make PYTHON=/path/to/python3.12 demo
#
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
export PYTHON DEBIAN_GDAL CEPH PYTEST_ARGS PYTEST_PROCESSES STRESS_ARGS BENCH_ARGS UPGRADE
# Meant for other work: they would lead the environments astray.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-all test-s3 stress lint bench requirements clean

help: ## say what there is
	@echo "make demo          copy a real raster's attribute table into a sidecar and back (start here)"
	@echo "make test          linters and all tests; where apt-get is, also against Debian's GDAL"
	@echo "                   and a real S3 server"
	@echo "make test-all      the same with the tests that take long"
	@echo "make test-s3       the tests of S3 against a real server: Ceph's gateway, on loopback"
	@echo "make stress        processes at one table, killed ones, damage; as long as you like"
	@echo "make lint          ruff, mypy --strict, import-linter"
	@echo "make bench         speed against named rivals; BENCH_ARGS=--write: docs/benchmarks.md anew"
	@echo "make requirements  write requirements/*.txt anew (UPGRADE=1: newest versions)"
	@echo "make clean         remove the environments and all that can be made again"
	@echo
	@echo "PYTHON=...         the interpreter for the environments, if the one found doesn't suit"
	@echo "DEBIAN_GDAL=no     make test without the second environment; CEPH=no: without that server"
	@echo 'PYTEST_ARGS="-k x" arguments for pytest; STRESS_ARGS=--help for make stress'

demo:
	@scripts/demo

test:
	@scripts/test

test-all:
	@THOROUGH=yes scripts/test

test-s3:
	@scripts/test-s3

stress:
	@python=$$(scripts/find-python) && "$$python" scripts/environment.py test && \
		.venv/bin/python -m tests.stress $(STRESS_ARGS)

lint:
	@python=$$(scripts/find-python) && "$$python" scripts/environment.py test && scripts/lint

bench:
	@BENCH_ARGS="$(BENCH_ARGS)" scripts/bench

requirements:
	@python=$$(scripts/find-python) && "$$python" scripts/environment.py requirements && \
		"$$python" scripts/compile_requirements.py

clean:
	rm -rf .venv .venv-bench .venv-debian-gdal .venv-requirements dist build
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find ratzarr gdalbridge tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
