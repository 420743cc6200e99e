# Every target makes what it needs in .venv, from the pinned versions of constraints.txt.
PYTHON ?= python3
PIP_INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-slow test-oldest lint typecheck docs test-docs dist test-dist bench bench-peers clean

demo: .venv/demo.stamp
	.venv/bin/python -m benchmarks.demo

test: .venv/test.stamp
	.venv/bin/python -m pytest

test-slow: .venv/test.stamp
	.venv/bin/python -m pytest tests -m slow

# The oldest versions that pyproject.toml allows (torch apart). Their own deprecations are not ours,
# and libraries that take our estimators have higher floors.
test-oldest: .venv-oldest/test.stamp
	.venv-oldest/bin/python -m pytest tests -o filterwarnings=default \
		--ignore tests/test_notebooks.py --ignore tests/test_other_libraries.py

lint: .venv/test.stamp
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports

typecheck: .venv/test.stamp
	.venv/bin/mypy

# The site, in build/site, with all examples executed; and a look at it in a browser.
docs: .venv/docs.stamp
	rm -rf build/site docs/api/generated docs/auto_examples
	.venv/bin/sphinx-build --fail-on-warning --keep-going --quiet -d build/doctrees docs build/site

test-docs: docs .venv/test.stamp
	.venv/bin/python -m pytest tests/test_site.py

# What is uploaded: the package alone, and all that its tests need.
dist: .venv/dist.stamp
	rm -rf build/dist
	.venv/bin/python -m build --outdir build/dist .
	.venv/bin/twine check --strict build/dist/*

# The tests, from the unpacked source distribution.
test-dist: dist .venv/test.stamp
	rm -rf build/unpacked && mkdir -p build/unpacked
	tar xzf build/dist/*.tar.gz -C build/unpacked --strip-components 1
	cd build/unpacked && ../../.venv/bin/python -m pytest

bench: .venv/bench.stamp
	.venv/bin/python -m benchmarks.ablation
	.venv/bin/python -m benchmarks.recipe
	.venv/bin/python -m benchmarks.lengthscale_tradeoff
	.venv/bin/python -m benchmarks.out_of_distribution
	.venv/bin/python -m benchmarks.training_loop
	.venv/bin/python -m benchmarks.import_time
	.venv/bin/python -m benchmarks.one_row
	.venv/bin/python -m benchmarks.quantiles
	.venv/bin/python -m benchmarks.wide_tables
	.venv/bin/python -m benchmarks.support
	.venv/bin/python -m benchmarks.saving
	.venv/bin/python -m benchmarks.scaling
	.venv/bin/python -m benchmarks.out_of_core

# Hours, and libraries of gigabytes. Goes on where it stopped.
bench-peers: .venv/peers.stamp
	.venv/bin/python -m benchmarks.tables
	.venv/bin/python -m benchmarks.regression
	.venv/bin/python -m benchmarks.drift
	.venv/bin/python -m benchmarks.fit_time
	.venv/bin/python -m benchmarks.fit_time --rows 30000 --classes 11 --methods FoRDE CatBoost --output benchmarks/results/fit_time_30000.txt
	.venv/bin/python -m benchmarks.front

clean:
	rm -rf .venv .venv-oldest build

.venv/%.stamp: pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(PIP_INSTALL) --constraint constraints.txt --editable ".[$*]"
	touch $@

.venv-oldest/test.stamp: pyproject.toml constraints-oldest.txt
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints-oldest.txt --editable ".[test-core]"
	touch $@
