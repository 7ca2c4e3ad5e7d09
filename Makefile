# Everything a newcomer needs: `make demo` to see it run, `make test` to check it.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
BACKBONES := resnet50 densenet169 inception_v3 inception_resnet_v2 xception

SAMPLE := data/sample/ISIC-2017_Test_v2_Part3_GroundTruth.csv

.DEFAULT_GOAL := help
.PHONY: help demo test lint clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */make \1|/' | column -t -s '|'

demo: $(SAMPLE)  ## make the built-in sample and run all six stages on it, and report (about 7 minutes on 2 cores)
	$(RUN) seg_train.py --preset sample
	$(RUN) seg_predict.py --preset sample
	$(RUN) resize.py --preset sample
	set -e; for backbone in $(BACKBONES); do \
		$(RUN) training.py --preset sample --backbone-name $$backbone; \
		$(RUN) cls_predict.py --preset sample --backbone-name $$backbone; \
	done
	$(RUN) vote.py --preset sample
	$(RUN) report.py --preset sample

test: lint $(VENV)/installed-tests  ## lint, then run the tests (about 9 minutes on 2 cores)
	$(RUN) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed-tests  ## check style and format with ruff
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:  ## remove the virtual environment, the sample and its run
	rm -rf $(VENV) data/sample runs/sample

# The last file that the sample's maker writes; made once, so that a repeated demo goes on where it was.
$(SAMPLE): data/sample.py | $(VENV)/installed
	$(RUN) -m data.sample
	@touch $@

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13: name one, as in make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.txt
	@touch $@

$(VENV)/installed-tests: $(VENV)/installed tests/requirements.txt requirements-snakemake.txt
	$(RUN) -m pip install --quiet --requirement requirements.txt --requirement tests/requirements.txt
	@touch $@
