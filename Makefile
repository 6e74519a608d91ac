# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# one thread for each of pytest's two workers
TEST_ENV := OMP_NUM_THREADS=1 MINIDIFF_BUDGET=smoke

.PHONY: demo check test fuzz lab notebooks figures

demo: .venv/installed
	mkdir -p demo
	$(BIN)/minidiff sample 0 1 2 3 4 5 6 7 8 9 --out demo/digits.png
	$(BIN)/minidiff sample 0 1 2 3 4 5 6 7 8 9 --out demo/denoising.gif
	@echo "Look at $(CURDIR)/demo/digits.png and $(CURDIR)/demo/denoising.gif; then: make lab"

# style, types and the quick half of the tests: before every commit
check: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --level error
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 -m "not slow"

# all tests
test: .venv/installed
	$(TEST_ENV) $(BIN)/python -m pytest -n 2

# the tests' mutated files, with other random numbers and many more of them
fuzz: .venv/installed
	$(TEST_ENV) $(BIN)/python -m pytest tests/hostile --hypothesis-profile=fuzz

lab: .venv/installed
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb

# executes the lessons whose source has changed; ALL=1 executes all of them
notebooks: .venv/installed
	$(BIN)/python notebooks/build.py $(if $(ALL),--all)

# the images on the front pages
figures: .venv/installed
	$(BIN)/python assets/make_figures.py

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[notebooks,dev,parity]"
	touch $@
