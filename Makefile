# Everything a newcomer needs: `make demo` to see it run, `make test` to check it, `make run` for the real thing.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SAMPLE := data/sample/ISIC-2017_Test_v2_Part3_GroundTruth.csv

# What a run is made with: preset (without one, the settings of the run folder, or else isic2017), folder of the data, run
# folder (without them, those of the preset), other options.
PRESET :=
DATA :=
RUN :=
OPTIONS :=
SETTINGS = $(if $(PRESET),--preset $(PRESET))$(if $(DATA), --data-dir "$(DATA)")$(if $(RUN), --run-dir "$(RUN)") $(OPTIONS)
# Trainings at once: those of the demo are small, so as many as cores and memory allow; real ones use all cores.
SIDE_BY_SIDE := 1
# The run that comes with the repository, the example images, and the folder of its diagnoses.
TRAINED := models/trained
EXAMPLES := data/examples
DIAGNOSES := runs/examples

.DEFAULT_GOAL := help
.PHONY: help demo run report test lint clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */make \1|/' | column -t -s '|'

demo: $(SAMPLE)  ## diagnose the example images, then run all six stages and the report on the built-in sample (5 to 10 minutes)
ifneq ($(wildcard $(TRAINED)/config.json),)
	$(PY) predict.py $(EXAMPLES) --run-dir $(TRAINED) --output $(DIAGNOSES)
endif
	@$(MAKE) --no-print-directory run PRESET=sample SIDE_BY_SIDE=0
ifneq ($(wildcard $(TRAINED)/config.json),)
	@echo "diagnoses of the example images:"
	@$(PY) -m evaluation.diagnoses $(DIAGNOSES)
endif

run: $(VENV)/installed  ## all six stages and report, or what is left of them: make run DATA=... PRESET=fine_tuned [RUN=...] [OPTIONS=...]
	@$(PY) -m pipeline.all_stages --side-by-side $(SIDE_BY_SIDE) $(SETTINGS)

report: $(VENV)/installed  ## put a finished run on one page: make report RUN=runs/fine_tuned
	$(PY) report.py $(if $(RUN),--run-dir "$(RUN)"$(if $(DATA), --data-dir "$(DATA)") $(OPTIONS),$(SETTINGS))

test: lint $(VENV)/installed-tests  ## lint, then run the tests (10 to 15 minutes on 2 cores)
	$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed-tests  ## check style and format with ruff
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean:  ## remove the virtual environment, the sample, its run and the pictures of the demo
	rm -rf $(VENV) data/sample runs/sample $(DIAGNOSES)

# The last file that the sample's maker writes; made once, so that a repeated demo goes on where it was.
$(SAMPLE): data/draw_sample.py | $(VENV)/installed
	$(PY) -m data.draw_sample
	@touch $@

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13: name one, as in make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --requirement requirements.txt
	@touch $@

$(VENV)/installed-tests: $(VENV)/installed tests/requirements.txt requirements-snakemake.txt requirements-app.txt
	$(PY) -m pip install --quiet --requirement requirements.txt --requirement tests/requirements.txt
	@touch $@
