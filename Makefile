# Two commands for a fresh machine with Python 3.11 or newer, pip and make: `make run` and `make test`.
PYTHON ?= python3
VENV ?= .venv
OUT ?= out
BIN := $(VENV)/bin
# How long `make run` trains; `make run EPOCHS=2` is a first look.
EPOCHS ?= 60
PIP_SAYS ?= --quiet
# setuptools warns of any editable installation.
PIP_INSTALL = PYTHONWARNINGS=ignore $(BIN)/python -m pip install -c constraints.txt
# Written by tools/first_run.py.
RUN_TAKES := It downloads 112 MB the first time. It takes 24 s to install, 11 s to compile, check and draw, and 0.5 s an epoch, measured on 2 threads of AMD EPYC.

# Tests start this code some hundred times, and compiling it to bytecode again each time takes half a second.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run about-run test vulkan chromium aarch64 lint types unit lit short site clean

run: about-run $(VENV)/.run
	$(BIN)/sonew run --epochs $(EPOCHS) -o $(OUT) --overwrite
	$(BIN)/sonew reconstruct $(OUT)/bundle --checkpoint $(OUT) -o $(OUT)/reconstruction.png
	$(BIN)/sonew plot $(OUT) -o $(OUT)/loss.png
	@echo 'The losses are nats an image, summed over its 784 pixels: less is better. The test loss is that of 1,000 digits'
	@echo 'that the training has not seen. If it rises while the train loss falls, the model learns by heart.'
	@echo '$(OUT)/reconstruction.png shows test digits over what the model makes of them, each from 30 numbers.'
	@echo '$(OUT)/loss.png shows both losses by epoch; $(OUT)/metrics.jsonl has the numbers.'

about-run:
	@echo 'make run installs the compiler, compiles the autoencoder and trains it for $(EPOCHS) epochs.$(if $(RUN_TAKES), $(RUN_TAKES))'

# What is installed waits for the network and for pip in turn, so all of it comes at once. The short checks run beside
# the tests, whose last files leave a core idle. `make -k`: every check runs and reports, also after one has failed.
test:
	@$(MAKE) --no-print-directory -j3 $(VENV)/.test vulkan chromium aarch64
	@$(MAKE) --no-print-directory -j2 -k unit short

# Each one's output at once, in one piece.
short:
	@$(MAKE) --no-print-directory --output-sync -k lint types lit

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

# One process more than the processor has threads, at most four, of up to 2 GB: a tenth of the time a process waits for
# others. A file's tests stay in one process, and share what it has compiled.
unit:
	$(BIN)/pytest -n $$(($$(nproc) + 1)) --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations=40

lit:
	$(BIN)/lit -v tests/lit

# The documentation, as site/index.html; tests/test_site.py builds it, too.
site: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# A software Vulkan device for the tests that need one, where we may install it; they skip with a reason elsewhere.
vulkan:
	@sh tools/install_vulkan.sh

# A browser without a window, for the test of the benchmark's page; it skips with a reason elsewhere.
chromium: vulkan
	@sh tools/install_chromium.sh

# A 64-bit Arm Python under emulation, inside the environment; the test that needs it skips with a reason elsewhere.
aarch64: $(VENV)/.venv
	@sh tools/install_aarch64.sh $(VENV)/aarch64 $(BIN)/python

$(VENV)/.venv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sonew needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77"
	@touch $@

$(VENV)/.run: $(VENV)/.venv pyproject.toml constraints.txt
	$(PIP_INSTALL) $(PIP_SAYS) -e '.[compile,plot]'
	@touch $@

# Most of these modules are never imported, and making bytecode of all of them takes 40 s.
$(VENV)/.test: $(VENV)/.venv pyproject.toml constraints.txt
	$(PIP_INSTALL) --quiet --no-compile -e '.[compile,bench,cuda,docs,equinox,flax,haiku,mpi,parquet,plot,tpu,tune,dev]'
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) $(OUT) build site *.egg-info
