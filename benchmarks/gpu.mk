# Train what isic2017.sh trains on one GPU: networks, folds, ablations, seeds, further images, side by side.
#
#     make -f benchmarks/gpu.mk -k -j 7 DATA=... WEIGHTS=... HAM10000=...
#
# The files in results/isic2017_256_gpu were made by this file as of commit a103ba1. The preset fine_tuned has changed
# since: to repeat those results, check out that commit.
#
# Seven processes share the GPU, because one network leaves it idle while it is built, compiled and predicted from. The
# same command continues an interrupted run. Logs and the seconds of every step are in RUN/logs. Run folders beside RUN,
# with the crops of the same U-Net:
#
#   RUN_two                   vote of inception_v3 and xception, which are trained on images of ISIC 2017 alone
#   RUN_folds                 inception_v3 on all images and in five folds, and the methods fitted out of fold
#   RUN_seed_1, RUN_seed_2    inception_v3 with two other seeds
#   RUN_extra                 inception_v3 and xception trained with HAM10000; the other networks, copied from RUN
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHON := .venv/bin/python
RUN := runs/gpu
DATA := data/isic2017
WEIGHTS := weights
HAM10000 := data/ham10000
FOLDS := 1 2 3 4 5
SEEDS := 1 2
OPTIONS :=

export KERAS_BACKEND ?= jax
# Compile each kind of network once, and do not let one process take all memory of the GPU.
export JAX_COMPILATION_CACHE_DIR ?= $(abspath $(RUN))_compiled
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5
export XLA_PYTHON_CLIENT_PREALLOCATE ?= false
# Any number stops pipeline/allocator.py from setting a single arena, which might slow XLA's compiler threads (not measured).
export MALLOC_ARENA_MAX ?= 64
# One OpenCV thread per worker is enough: seven networks share 16 cores.
export OPENCV_FOR_THREADS_NUM ?= 1

# 2000 and 1600 images are whole batches of 50: a smaller last batch would be compiled separately.
SETTINGS := --preset fine_tuned --data-dir $(DATA) --batch-size 50 --epochs 16 \
	--ema-momentum 0.99 --in-memory --workers 3 $(OPTIONS)
UNET := --weights $(WEIGHTS) --unet-batch-size 25 --mixed-precision float32 --workers 8
EXTRA := --extra-data-dir $(HAM10000)
FINE_TUNED := --weights $(WEIGHTS)
# Random weights: train everything from the start, with a higher rate and faster moving statistics.
RANDOM := --weights none --frozen-epochs 0 --learning-rate 1e-3 --epochs 18 --batch-norm-momentum 0.9 $(EXTRA)

BACKBONES := resnet50 densenet169 inception_v3 inception_resnet_v2 xception
PRETRAINED := $(filter $(BACKBONES),inception_v3 xception)
# In order of compile time, longest first.
OTHERS := $(filter $(BACKBONES),inception_resnet_v2 densenet169 resnet50)
FOLDED := inception_v3
$(foreach name,$(PRETRAINED),$(eval START_$(name) := $(FINE_TUNED)))
$(foreach name,$(OTHERS),$(eval START_$(name) := $(RANDOM)))

DONE := $(RUN)/done
LOGS := $(RUN)/logs
# Run a script: arguments are the script, the run folder, options and environment. Output and seconds go to the logs.
run = @start=$$EPOCHSECONDS; $(4) $(PYTHON) $(1) $(SETTINGS) --run-dir $(2) $(3) >>$(LOGS)/$(@F).log 2>&1; \
	echo "$(1) $(3) in $(notdir $(2)): $$((EPOCHSECONDS - start)) s" | tee -a $(LOGS)/times
# Copy the inputs of classifier training, and their manifests, from RUN to a folder beside it.
beside = @mkdir -p $(1)/manifests; cp -rp $(RUN)/{config.json,decoded.json,unet,masks,crops} $(1); \
	cp -p $(RUN)/manifests/{unet,masks,crops}*.jsonl $(1)/manifests
# Copy networks and their predictions.
take = @mkdir -p $(1)/{backbones,predictions}; for name in $(2); do cp -rp $(RUN)/backbones/$$name $(1)/backbones; \
	cp -p $(RUN)/predictions/$${name}_* $(1)/predictions; cp -p $(RUN)/manifests/{,predictions_}$${name}*.jsonl $(1)/manifests; done

ALL := $(OTHERS) $(PRETRAINED) vote $(FOLDED:%=%_folds) two folds segmentation squeeze_excitation $(SEEDS:%=seed_%) \
	$(PRETRAINED:%=%_extra) extra
.PHONY: all
all: $(ALL:%=$(DONE)/%)

$(DONE) $(LOGS):
	mkdir -p $@

# These two need no U-Net, so they run while it is trained.
$(DONE)/masks_none $(DONE)/masks_ground_truth: $(DONE)/masks_%: | $(DONE) $(LOGS)
	$(call run,resize.py,$(RUN)/ablations/masks_$*,--masks $* --splits training validation)
	$(call run,training.py,$(RUN)/ablations/masks_$*,--masks $* --splits training validation --backbone-name inception_v3 $(FINE_TUNED))
	$(call run,cls_predict.py,$(RUN)/ablations/masks_$*,--masks $* --splits training validation --backbone-name inception_v3)
	@touch $@

$(DONE)/unet: | $(DONE) $(LOGS)
	$(call run,seg_train.py,$(RUN),$(UNET))
	@touch $@

$(DONE)/masks: $(DONE)/unet
	$(call run,seg_predict.py,$(RUN),$(UNET) $(EXTRA))
	@touch $@

$(DONE)/crops: $(DONE)/masks
	$(call run,resize.py,$(RUN),$(EXTRA) --workers 12)
	@touch $@

$(BACKBONES:%=$(DONE)/%): $(DONE)/%: $(DONE)/crops
	$(call run,training.py,$(RUN),--backbone-name $* $(START_$*))
	$(call run,cls_predict.py,$(RUN),--backbone-name $*)
	@touch $@

define fold
$(DONE)/$(1)_fold_$(2): $(DONE)/crops
	$$(call run,training.py,$(RUN),--backbone-name $(1) $(START_$(1)) --folds $(words $(FOLDS)) --fold $(2))
	@touch $$@
endef
$(foreach name,$(FOLDED),$(foreach k,$(FOLDS),$(eval $(call fold,$(name),$(k)))))

$(FOLDED:%=$(DONE)/%_folds): $(DONE)/%_folds: $(DONE)/% $(FOLDS:%=$(DONE)/\%_fold_%)
	$(call run,cls_predict.py,$(RUN),--backbone-name $* --folds $(words $(FOLDS)))
	@touch $@

# The voting networks are too small to gain from a GPU.
ON_CPU := JAX_PLATFORMS=cpu

$(DONE)/vote: $(BACKBONES:%=$(DONE)/%)
	$(call run,vote.py,$(RUN),--backbones $(BACKBONES),$(ON_CPU))
	@touch $@

# Wait for the folds: `take` copies whole folders, and unfinished files must not be copied.
$(DONE)/two: $(PRETRAINED:%=$(DONE)/%) $(FOLDED:%=$(DONE)/%_folds)
	$(call beside,$(RUN)_two)
	$(call take,$(RUN)_two,$(PRETRAINED))
	$(call run,vote.py,$(RUN)_two,--backbones $(PRETRAINED),$(ON_CPU))
	@touch $@

$(DONE)/folds: $(FOLDED:%=$(DONE)/%_folds)
	$(call beside,$(RUN)_folds)
	$(call take,$(RUN)_folds,$(FOLDED))
	@cp -p $(RUN)/folds.csv $(RUN)_folds; cp -p $(RUN)/manifests/folds*.jsonl $(RUN)_folds/manifests
	$(call run,vote.py,$(RUN)_folds,--backbones $(FOLDED) --folds $(words $(FOLDS)),$(ON_CPU))
	@touch $@

$(DONE)/segmentation: $(DONE)/masks_none $(DONE)/masks_ground_truth
$(DONE)/segmentation $(DONE)/squeeze_excitation: $(DONE)/%: $(DONE)/inception_v3
	$(call run,paper_tables.py,$(RUN),$* --backbones inception_v3 $(FINE_TUNED) --splits training validation)
	@touch $@

$(SEEDS:%=$(DONE)/seed_%): $(DONE)/seed_%: $(DONE)/crops
	$(call beside,$(RUN)_seed_$*)
	$(call run,training.py,$(RUN)_seed_$*,--backbone-name inception_v3 $(FINE_TUNED) --seed $*)
	$(call run,cls_predict.py,$(RUN)_seed_$*,--backbone-name inception_v3)
	@touch $@

$(DONE)/beside_extra: $(DONE)/crops
	$(call beside,$(RUN)_extra)
	@touch $@

$(PRETRAINED:%=$(DONE)/%_extra): $(DONE)/%_extra: $(DONE)/beside_extra
	$(call run,training.py,$(RUN)_extra,--backbone-name $* $(FINE_TUNED) $(EXTRA))
	$(call run,cls_predict.py,$(RUN)_extra,--backbone-name $*)
	@touch $@

$(DONE)/extra: $(PRETRAINED:%=$(DONE)/%_extra) $(OTHERS:%=$(DONE)/%)
	$(call take,$(RUN)_extra,$(OTHERS))
	$(call run,vote.py,$(RUN)_extra,--backbones $(BACKBONES),$(ON_CPU))
	@touch $@
