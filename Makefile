.DEFAULT_GOAL := help
.PHONY: help setup run serve airflow test test-long test-faults test-runners test-airflow test-fuzz test-other-stack test-stacks \
  test-image lint format image prism kfp clean

# Everything that the pipeline keeps: artifacts, metadata, pushed models, reports.
export BERT_HOME ?= $(CURDIR)/.bert
export BERT_CORPUS := $(or $(CORPUS),$(BERT_CORPUS))
# Else each process compiles TensorFlow's and TFX's 5,000 modules anew.
unexport PYTHONDONTWRITEBYTECODE
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
BEAM_VERSION = $(shell $(BIN)/python -c 'from importlib.metadata import version; print(version("apache-beam"))')

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

setup: ## install what is missing: uv, a Python from 3.10 to 3.13, the locked packages
	@.ci/setup

run: setup ## the main job: text -> trained, evaluated, pushed model, which then answers (CORPUS='files or globs' for your own text)
	@$(BIN)/python -m pipeline.main_job

serve: setup ## serve the pushed models until Ctrl-C, by their labels where `bert promote` gave some (NAME=... if the settings name the pipeline)
	@if [ -f "$(BERT_HOME)/serving/models.config" ]; then \
	  $(BIN)/bert serve --model-config-file "$(BERT_HOME)/serving/models.config" --model-config-file-poll-wait-seconds 1; else \
	  $(BIN)/bert serve --model-base-path "$(BERT_HOME)/serving/$(or $(NAME),bert)" --model-name "$(or $(NAME),bert)"; fi

airflow: setup ## Airflow with the pipeline as its DAG, on loopback, until Ctrl-C (PORT=8080; POSTGRES=postgresql://... for its database)
	@pipeline/deploy/airflow/start

test: setup ## the tests, ten minutes on two fast cores
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
	  -m "not long and not runners and not fuzz and not stacks and not airflow and not faults"

test-long: setup ## the tests that take minutes
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --timeout 900 -m long

test-faults: setup ## runs that are killed (KILLS=20 SEED=0), full disks (needs root), stores that are damaged or gone
	@$(BIN)/python -m pytest -m faults

test-runners: setup prism kfp ## the same examples from a portable Beam runner; Kubeflow's loader on the compiled pipeline
	@$(BIN)/python -m pytest -m runners

test-airflow: setup ## the pipeline as a DAG of Airflow 3 and 2, until a model is pushed (TESTS='FILE -k ...': some of them)
	@for version in 3 2; do pipeline/deploy/airflow/environment $$version >/dev/null || exit 1; done
	@$(BIN)/python -m pytest -m airflow $(TESTS)

test-fuzz: setup ## random text, files, requests and flags, for ten minutes (FUZZ_SECONDS=...)
	@$(BIN)/python -m pytest -m fuzz

test-other-stack: ## lint, tests and the smoke pipeline on the stack that this machine does not take (needs root and debootstrap)
	@.ci/other-stack

test-stacks: setup ## what was made on one stack is used on the other (needs root and debootstrap)
	@$(BIN)/python -m pytest -m stacks

test-image: setup ## build the container image and run the smoke pipeline's steps in it, as Kubeflow would
	@.ci/image test

lint: setup ## formatting, lint and types (of the oldest Python, and of this one)
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && \
	  $(BIN)/mypy --python-version $$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

format: setup ## format and mend what ruff can
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

image: ## build the container image with docker, podman or buildah (IMAGE=name BASE=python:... EXTRAS='--extra gpu')
	@.ci/image

prism: setup ## build Beam's portable runner (needs Go)
	@if command -v go >/dev/null; then [ -x .uv/prism ] || { mkdir -p .uv && \
	  GOBIN=$(CURDIR)/.uv go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$(BEAM_VERSION); }; \
	  else echo "prism: no Go here; the tests that need it will say that they are skipped"; fi

kfp: setup ## install Kubeflow's SDK, in an environment of its own: its protobuf is another one
	@[ -x .uv/kfp/bin/kfp ] || { export PATH="$$PATH:$(CURDIR)/.uv/bin"; uv venv --quiet --python $(BIN)/python .uv/kfp && \
	  uv pip install --quiet --python .uv/kfp/bin/python kfp==2.17.3 kfp-kubernetes==2.17.3; }

clean: ## remove what was installed and what the pipeline keeps
	rm -rf .venv .uv .bert .pytest_cache .ruff_cache .mypy_cache .hypothesis
