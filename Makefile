# A new user's whole vocabulary. Everything lives in .venv/ and runs/; `make clean` forgets both.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
AZUREML := .venv-azureml/.installed
# Processes side by side, a thread each: torch's threads would wait for each other's turn.
BESIDE_EACH_OTHER := OMP_NUM_THREADS=1

.PHONY: help install demo up test test-slow azureml-server check reference bench-scan bench-demo bench-runner bench-coverage bench-serve bench-soak bench-quantised bench-train bench-train-gpu bench-ui azure-demo bench-azure-faults clean

help:            ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/  /'

install: $(INSTALLED)  ## build .venv/ with the pinned versions

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and "phi3flow needs Python 3.11 or 3.12: make install PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --prefer-binary --constraint constraints.txt --editable '.[all]'
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt optimum-intel
	touch $@

demo: $(INSTALLED)     ## the whole loop on this machine: data, base, train, serve, flows, comparison
	$(BIN)/phi3flow demo

up: $(INSTALLED)       ## chat with the demo's model in the browser
	$(BIN)/phi3flow up

test: $(INSTALLED)     ## every test but the slow ones
	$(BESIDE_EACH_OTHER) $(BIN)/pytest -n 3 --dist loadgroup --no-loadscope-reorder

test-slow: $(INSTALLED)  ## the slow tests: every recipe on the real shape, and the like
	$(BESIDE_EACH_OTHER) $(BIN)/pytest -n 3 --dist loadgroup --no-loadscope-reorder -m slow

azureml-server: $(AZUREML)  ## Azure's inference server in .venv-azureml/, for slow tests: a minute, 0.5 GB

$(AZUREML): deploy/azure/deployments/conda.yaml $(INSTALLED)
	$(BIN)/python -m venv --clear .venv-azureml
	$(BIN)/python -c 'import sys, yaml; print(*yaml.safe_load(sys.stdin)["dependencies"][-1]["pip"], sep="\n")' < $< > .venv-azureml/requirements.txt
	.venv-azureml/bin/pip install --quiet --prefer-binary --requirement .venv-azureml/requirements.txt
	touch $@

check: $(INSTALLED)    ## formatting, lint, types, the floors of docs/architecture.md, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/zizmor --offline --quiet .github

reference: $(INSTALLED)  ## docs/reference.md, from the code
	$(BIN)/python docs/make_reference.py

bench-demo: $(INSTALLED)  ## the demo's figures on seeds 0, 1 and 2
	$(BIN)/python bench/demo.py

bench-scan: $(INSTALLED)  ## real input: make bench-scan SCAN=DIR with SCAN's train.jsonl and test.jsonl
	$(BIN)/python bench/scan.py $(SCAN)

bench-runner: $(INSTALLED)  ## the direct runner: against the clock, pf run, and 100 000 lines
	$(BIN)/python bench/runner.py

bench-coverage: $(INSTALLED)  ## do the intervals cover the truth, on 2 000 simulated test files
	$(BIN)/python bench/coverage.py

bench-serve: $(INSTALLED)  ## serving: our engines against mlflow models serve, half an hour; ARGS="--rounds N --seconds S"
	$(BIN)/python bench/serve.py $(ARGS)

bench-soak: $(INSTALLED)  ## ten minutes at twice what the endpoint can do, every answer checked
	$(BIN)/python bench/soak.py $(ARGS)

bench-quantised: $(INSTALLED)  ## exact match of the demo model in int8 and int4 against fp32
	$(BIN)/python bench/quantised.py

bench-train: $(INSTALLED)  ## fine-tuning: the tutorials' settings against ours; ARGS="--rounds N"
	$(BIN)/python bench/train.py $(ARGS)

bench-train-gpu: $(INSTALLED)  ## the same on a CUDA GPU and Phi-3-mini's shape; ARGS="--arms NAME ..."
	$(BIN)/python bench/train_gpu.py $(ARGS)

bench-ui: $(INSTALLED)  ## the chat page: first token in the browser, 20 people at once
	$(BIN)/python bench/chat_app.py $(ARGS)

azure-demo: $(INSTALLED)  ## the cloud half on an emulated Azure, from nothing to an answer and back to nothing
	PYTHONPATH=tests/azure $(BIN)/python tests/azure/azure_demo.py

bench-azure-faults: $(INSTALLED)  ## every Azure call fails once, in four ways; ARGS="--once" for one way each
	PYTHONPATH=tests/azure $(BIN)/python bench/azure_faults.py $(ARGS)

clean:           ## remove .venv/, .venv-azureml/ and runs/
	rm -rf .venv .venv-azureml runs
