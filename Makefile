# Everything happens in .venv/, which the first target that needs it makes, and which is brought up to date when
# pyproject.toml or constraints.txt change.
#
#   make PYTHON=python3.12 test     another interpreter, 3.11 or newer
#   make OUT=/tmp/out demo          another folder for what the demo writes
#   make PYTEST_FLAGS="-k conv" test
#   make EXTRAS=teachers,evaluate test      with the packages of teachers and metrics too
#   make DEFAULT=taste HOURS=0.1 FLITE=0.1 EPOCHS=2 STEPS=20 train-default    a taste of the training of the voice
#   make PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu" demo

PYTHON ?= python3
OUT ?= demo-output
TINY ?= train-tiny
DEFAULT ?= train-default
# Of the training of the voice that ships: hours of Kokoro's speech and of flite's; epochs and their steps, the recipe's
# where they are left out. A taste of it does not go over the weights that ship.
HOURS ?= 8
FLITE ?= 20
EPOCHS ?=
STEPS ?=
WEIGHTS ?= $(if $(EPOCHS)$(STEPS),$(DEFAULT)/astrape-mini.safetensors,astrape/recipes/weights/astrape-mini.safetensors)
DEFAULT_FLAGS ?=
# A corpus of parallel sets, as `astrape corpus make parallel` writes it.
CORPUS ?= $(DEFAULT)/corpus
HELD_OUT ?= held-out
# Conversions that evaluate-default measures, drawn from all of the list.
LIMIT ?= 40
JOBS ?= 2
RECIPE ?= voice-changer
PIP_FLAGS ?=
# The version that runners/web is tested with.
ORT_WEB ?= 1.30.0
PYTEST_FLAGS ?=
# Hosts that plugin-test takes from Debian.
PLUGIN_HOSTS ?= lv2-dev lv2-examples sordi jalv jackd2 libportaudio2 ardour
# Seconds of sound that go through two plugins in jalv.
PLUGIN_SECONDS ?= 20
# More of pyproject.toml's extras to test with, such as teachers,evaluate: some of their packages need a C compiler.
# Tests of what is not installed skip, and say so.
EXTRAS ?=

VENV := .venv
BIN := $(VENV)/bin
# Tests run in processes beside each other, and times are of one core: torch's own threads would only get in the way.
ONE_CORE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Each process takes a stretch of the tests, and what the other leaves at the end: what a file shares is made once.
PYTEST := $(ONE_CORE) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo runner runner-web plugin plugin-test test slow hours lint train-tiny train-default train-speaker evaluate-default evaluation-page bench peers docs clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: $(VENV)/.installed-plot ## run a voice through the voice changer, live-style: wav, latency report, pictures
	$(BIN)/astrape demo --output "$(OUT)"

runner: $(VENV)/.installed-export ## astrape-run, which streams a WAV through an export without Python, into build/runner (Debian, as root)
	INSTALL=1 runners/cpp/build.sh build/runner $(BIN)/python

runner-web: ## ONNX Runtime for browsers, from npm, into build/web: what the tests of runners/web run on
	npm install --no-audit --no-fund --silent --prefix build/web onnxruntime-web@$(ORT_WEB)

plugin: $(VENV)/.installed-export ## the plugin as VST3, CLAP and LV2, with the voices that ship, into build/plugin/bundles (Debian, as root)
	INSTALL=1 $(ONE_CORE) runners/plugin/build.sh build/plugin $(BIN)/python

plugin-test: $(VENV)/.installed-test,plugin plugin ## the plugin in real hosts, which are installed (Debian, as root)
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(PLUGIN_HOSTS)
	$(ONE_CORE) PLUGIN_SECONDS=$(PLUGIN_SECONDS) $(BIN)/python -m pytest $(wildcard tests/runtime/test_plugin*.py) \
		-rs $(PYTEST_FLAGS)

test: $(VENV)/.installed-test $(if $(EXTRAS),$(VENV)/.installed-$(EXTRAS)) ## the test suite
	$(PYTEST) $(PYTEST_FLAGS)

slow: $(VENV)/.installed-test ## all tests with long searches, and those that only run here
	HYPOTHESIS_PROFILE=slow $(PYTEST) -m "not hours" --timeout 3600 $(PYTEST_FLAGS)

hours: $(VENV)/.installed-test ## an hour of live callbacks for each size of block, with stalls: 20 minutes of one core
	$(PYTEST) tests/runtime/test_hours.py -m hours -rP $(PYTEST_FLAGS)

lint: $(VENV)/.installed-lint $(VENV)/.installed-test ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

train-tiny: $(VENV)/.installed-tiny ## train the small voice converter on real speech from Debian's packages: under an hour
	$(ONE_CORE) $(BIN)/astrape train-tiny --work "$(TINY)"

train-default: $(VENV)/.installed-default ## the weights that ship, from nothing: over a day of one core, stopped and resumed at will
	$(ONE_CORE) $(BIN)/astrape train-default --work "$(DEFAULT)" --hours $(HOURS) --flite $(FLITE) \
		$(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(STEPS),--steps $(STEPS)) --output "$(WEIGHTS)" $(DEFAULT_FLAGS)

train-speaker: $(VENV)/.installed-teachers,tiny ## the weights of the speaker encoder, from a corpus: half an hour, can be stopped and resumed
	$(ONE_CORE) $(BIN)/astrape train-speaker --corpus "$(CORPUS)" --work train-speaker \
		--output astrape/recipes/weights/astrape-speaker.safetensors

evaluate-default: $(VENV)/.installed-evaluate,tiny ## the shipped voice on speakers that no training heard, beside baselines, clean and degraded
	$(ONE_CORE) $(BIN)/astrape held-out --work "$(HELD_OUT)" $(if $(wildcard $(CORPUS)/sets),--corpus "$(CORPUS)")
	for list in "$(HELD_OUT)"/set/*.csv; do \
		$(ONE_CORE) $(BIN)/astrape evaluate --recipe astrape-mini --pairs "$$list" --limit $(LIMIT) \
			--metrics intelligibility,similarity,pitch,dnsmos,speed --baselines source,own-voice,world,trial,goal \
			--conditions noise-room --output "$(HELD_OUT)/$$(basename "$$list" .csv)" || exit 1; done
	$(ONE_CORE) $(BIN)/astrape voicebank verify "$(HELD_OUT)/set/speech"

evaluation-page: $(VENV)/.installed-evaluate ## the page of the docs on which the shipped voice can be heard and seen
	$(ONE_CORE) $(BIN)/astrape evaluate --recipe astrape-mini --pairs docs/evaluation/pairs.csv \
		--metrics intelligibility,similarity,pitch,dnsmos --baselines source,world --output "$(OUT)"
	cp "$(OUT)/index.html" docs/evaluation/astrape-mini.html

bench: $(VENV)/.installed-plot ## time per step and per callback, on one core
	$(ONE_CORE) $(BIN)/astrape bench $(RECIPE)

peers: build/peers/.installed ## astrape beside SequenceLayers, moshi, julius, soxr and scipy, in turns on one core
	$(ONE_CORE) XLA_FLAGS=--xla_cpu_multi_thread_eigen=false taskset -c 0 build/peers/bin/python -m benchmarks

docs: $(VENV)/.installed-docs ## the documentation, into site/
	$(BIN)/mkdocs build --strict

clean: ## remove everything that can be made again
	rm -rf $(VENV) build dist site demo-output train-tiny train-speaker held-out *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

build/peers/.installed: benchmarks/requirements.txt benchmarks/requirements-alone.txt constraints.txt
	python3 -m venv build/peers
	build/peers/bin/python -m pip install --quiet $(PIP_FLAGS) --constraint constraints.txt --editable .
	build/peers/bin/python -m pip install --quiet $(PIP_FLAGS) --requirement benchmarks/requirements.txt
	build/peers/bin/python -m pip install --quiet --no-deps --requirement benchmarks/requirements-alone.txt
	@touch $@

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) \
		--constraint constraints.txt --editable '.[$*]'
	@# Resemblyzer asks for a backport of Python's own typing module, which only stands in its way.
	@if $(BIN)/python -m pip show --quiet typing 2>/dev/null; then $(BIN)/python -m pip uninstall --quiet --yes typing; fi
	@touch $@

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "astrape needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another interpreter: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
