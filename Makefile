# Packages live in .venv/, what you make in runs/ and .phi3flow/: `make clean` removes the first, `make clean-runs`
# asks before it removes the others.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
AZUREML := .venv-azureml/.installed
AGENTS := .venv-agents/.installed
SCHEMATHESIS := .venv-schemathesis/.installed
# Processes side by side, a thread each: torch's threads would wait for each other's turn.
BESIDE_EACH_OTHER := OMP_NUM_THREADS=1

.PHONY: help install demo up test agents test-agents test-slow test-install azureml-server schemathesis check agreement reference bench-scan bench-demo bench-runner bench-kills bench-coverage bench-serve bench-soak bench-quantised bench-export bench-train bench-train-gpu bench-peers bench-ui bench-hosts azure-demo bench-azure-faults clean clean-runs evidence demo-real bench-banking bench-distill bench-gate bench-json bench-dpo bench-tools

help:            ## list these targets
	@awk -F ':.*## *' '/^[a-z-]+:.*##/ {printf "  %-20s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## install everything into .venv/, in the pinned versions

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and "phi3flow needs Python 3.11 or 3.12: make install PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --prefer-binary --constraint constraints.txt --editable '.[all]'
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt optimum-intel
	touch $@

demo: $(INSTALLED)     ## run the whole loop here: data, base model, training, serving, flows, comparison
	$(BIN)/phi3flow demo

demo-real: $(INSTALLED)  ## the same with a real small model and the chats of a help desk: 17 minutes
	$(BIN)/phi3flow demo --real

up: $(INSTALLED)       ## chat with the demo's model in the browser
	$(BIN)/phi3flow up

test: $(INSTALLED)     ## run the tests, except slow ones; ARGS="PATH or OPTION of pytest"
	$(BESIDE_EACH_OTHER) $(BIN)/pytest -n 3 --dist loadgroup --no-loadscope-reorder $(ARGS)

test-slow: $(INSTALLED)  ## run the slow tests, such as every recipe with Phi-3's real layer sizes
	$(BESIDE_EACH_OTHER) $(BIN)/pytest -n 3 --dist loadgroup --no-loadscope-reorder -m slow $(ARGS)

test-install: $(INSTALLED)  ## try every command of the wheel in fresh environments: downloads, 20 minutes, 6 GB
	$(BIN)/pytest -m install $(ARGS) tests/install

azureml-server: $(AZUREML)  ## install Azure's inference server into .venv-azureml/ for slow tests: a minute, 0.5 GB

$(AZUREML): deploy/azure/container/deployments/conda.yaml $(INSTALLED)
	$(BIN)/python -m venv --clear .venv-azureml
	$(BIN)/python -c 'import sys, yaml; print(*yaml.safe_load(sys.stdin)["dependencies"][-1]["pip"], sep="\n")' < $< > .venv-azureml/requirements.txt
	.venv-azureml/bin/pip install --quiet --prefer-binary --requirement .venv-azureml/requirements.txt
	touch $@

schemathesis: $(SCHEMATHESIS)  ## install schemathesis into .venv-schemathesis/ for slow tests: half a minute

$(SCHEMATHESIS): $(INSTALLED)
	$(BIN)/python -m venv --clear .venv-schemathesis
	.venv-schemathesis/bin/pip install --quiet --prefer-binary schemathesis==4.32.5
	touch $@

agents: $(AGENTS)      ## install Microsoft Agent Framework into .venv-agents/: the flows' second host

$(AGENTS): agents/requirements.txt agents/constraints.txt
	$(PYTHON) -m venv --clear .venv-agents
	.venv-agents/bin/pip install --quiet --prefer-binary --constraint agents/constraints.txt --requirement agents/requirements.txt
	.venv-agents/bin/pip install --quiet --no-deps --editable .
	touch $@

test-agents: $(INSTALLED) $(AGENTS)  ## compare the flows' two hosts, answer by answer
	for file in tests/agents/test_*.py; do \
		PHI3FLOW_REQUIRE_AGENTS=1 $(BIN)/pytest $(ARGS) $$file || [ $$? = 5 ] || exit 1; \
	done  # 5: ARGS leave none of this file's tests

check: $(INSTALLED)    ## check format, lint, types, the layers of docs/architecture.md, and workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/zizmor --offline --quiet .github

agreement: $(INSTALLED)  ## write the agreement with the labelled answers into docs/evaluation.md
	$(BIN)/python docs/make_agreement.py

reference: $(INSTALLED)  ## write docs/reference.md and the table in docs/data.md from the code
	$(BIN)/python docs/make_reference.py
	$(BIN)/python tests/chats/test_containers.py

evidence: $(INSTALLED)  ## write the table of Azure's calls and their evidence
	PYTHONPATH=tests/azure:tests/azure/support $(BIN)/python tests/azure/support/evidence.py

bench-demo: $(INSTALLED)  ## run the demo with seeds 0, 1 and 2
	$(BIN)/python bench/demo.py

bench-distill: $(INSTALLED)  ## train on rows that a scripted teacher wrote about documents, 10 minutes; ARGS="--model toy"
	PYTHONPATH=tests/support $(BIN)/python bench/distill.py $(ARGS)

bench-tools: $(INSTALLED)  ## train on function calls of a public leaderboard, and call functions that were held out: 20 minutes
	$(BIN)/python bench/tool_calls.py

bench-scan: $(INSTALLED)  ## train and evaluate on SCAN; SCAN=DIR has its train.jsonl and test.jsonl
	$(BIN)/python bench/scan.py $(SCAN)

bench-banking: $(INSTALLED)  ## train and evaluate on BANKING77; BANKING=DIR has its CSV files; ARGS="--train-rows N --test-rows N"
	$(BIN)/python bench/banking.py $(BANKING) $(ARGS)

bench-dpo: $(INSTALLED)  ## preference training, three seeds: margin and exact match; ARGS="RUN --recipe NAME"
	$(BIN)/python bench/dpo.py $(ARGS)

bench-runner: $(INSTALLED)  ## time the direct runner, compare it with pf run, and give it 100 000 lines
	$(BIN)/python bench/runner.py

bench-kills: $(INSTALLED)  ## kill -9 every command that writes a folder ten times, and start two of each; ARGS="--only NAME"
	$(BIN)/python bench/kills.py $(ARGS)

bench-coverage: $(INSTALLED)  ## check that 95 % intervals cover the truth, on simulated test files
	$(BIN)/python bench/coverage.py

bench-gate: $(INSTALLED)  ## simulate true losses of safety and knowledge: what does the gate promote?
	$(BIN)/python bench/gate.py

bench-serve: $(INSTALLED)  ## compare our engines with mlflow models serve, half an hour; ARGS="--rounds N --seconds S"
	$(BIN)/python bench/serve.py $(ARGS)

bench-json: $(INSTALLED)  ## what a JSON schema costs, with and without it in turn; ARGS="MODEL --rounds N"
	$(BIN)/python bench/json_answers.py $(ARGS)

bench-soak: $(INSTALLED)  ## overload the endpoint for ten minutes and check every answer
	$(BIN)/python bench/soak.py $(ARGS)

bench-quantised: $(INSTALLED)  ## compare the demo model in int8 and int4 with fp32
	$(BIN)/python bench/quantised.py

bench-export: $(INSTALLED)  ## export the real demo's model to every format, check and time each; ARGS="MODEL"
	$(BIN)/python bench/export.py $(ARGS)

bench-train: $(INSTALLED)  ## compare the tutorials' training settings with ours; ARGS="--rounds N"
	$(BIN)/python bench/train.py $(ARGS)

bench-peers: $(INSTALLED)  ## compare our training with TRL, litgpt and LLaMA-Factory, each installed by itself; ARGS="--rounds N"
	$(BIN)/python bench/peers.py $(ARGS)

bench-train-gpu: $(INSTALLED)  ## the same on a CUDA GPU with Phi-3-mini's layer sizes; ARGS="--arms NAME ..."
	$(BIN)/python bench/train_gpu.py $(ARGS)

bench-ui: $(INSTALLED)  ## time the first token in the browser, with 20 people at once
	$(BIN)/python bench/chat_app.py $(ARGS)

bench-hosts: $(INSTALLED) $(AGENTS)  ## compare the flows' two hosts: throughput, added time, mixed-up answers; ARGS="--rounds N"
	$(BIN)/python bench/hosts.py $(ARGS)

azure-demo: $(INSTALLED)  ## provision, train, deploy, ask and tear down on an emulated Azure
	PYTHONPATH=tests/azure $(BIN)/python tests/azure/azure_demo.py

bench-azure-faults: $(INSTALLED)  ## make every Azure call fail once, in four ways; ARGS="--once": in one way
	PYTHONPATH=tests/azure:tests/azure/support $(BIN)/python bench/azure_faults.py $(ARGS)

clean:           ## remove .venv/, .venv-*/ and caches; keeps runs/ and .phi3flow/
	rm -rf .venv .venv-agents .venv-azureml .venv-peers .venv-schemathesis build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . \( -name runs -o -name .git \) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

clean-runs:      ## ask, then remove runs/ and .phi3flow/: data, trained models, conversations, connections
	@[ -e runs ] || [ -e .phi3flow ] || { echo "nothing to remove: no runs/ and no .phi3flow/"; exit 0; }; \
	du -h -d 1 runs .phi3flow 2>/dev/null; \
	printf "Remove these for good? Trained models and conversations are in them. Type yes: "; \
	read -r answer || echo; \
	if [ "$$answer" != yes ]; then echo "kept"; exit 1; fi; \
	rm -rf runs .phi3flow; echo "removed"
