#!/usr/bin/env bash
# The README's results: all 2750 images of ISIC 2017 at 256x256 with the recipe of the preset fine_tuned, on a CPU.
#
#     benchmarks/isic2017_256.sh DATA WEIGHTS [HAM10000]
#
# DATA is the data set in the official layout, WEIGHTS a folder with Keras's weight files of xception and inception_v3;
# the other backbones start from random weights. Every step goes on where it was interrupted, and is done at once where
# nothing changed, so the same command may be given again and again. STEPS picks some of the steps, BACKBONES some of the
# backbones; RUN_DIR, RESULTS and PYTHON name the run folder, the folder of the results and the interpreter.
#
# Beside the run, each with inception_v3 alone: `folds`, `ablations` (whole frame and ground truth instead of predicted
# masks; no squeeze-and-excitation), `seeds` (two further ones), and `extra` (with HAM10000, in a run folder of its own).
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
RUN_DIR=${RUN_DIR:-runs/fine_tuned}
STEPS=${STEPS:-segment crop classify vote}
BACKBONES=${BACKBONES:-resnet50 densenet169 inception_v3 inception_resnet_v2 xception}
DATA=$1 WEIGHTS=$2 HAM10000=${3:-}
SETTINGS=(--preset fine_tuned --data-dir "$DATA")
# The U-Net sees flips, turns and shifts alone.
PLAIN=(--augment-zoom 0 --augment-brightness 0 --augment-contrast 0 --augment-saturation 0 --augment-hue 0)
# bfloat16 is a third faster on a CPU with AMX; elsewhere leave it out.
PRECISION=(--mixed-precision bfloat16)

stage() {
    SECONDS=0
    "$PYTHON" "$1" "${SETTINGS[@]}" --run-dir "$RUN_DIR" "${@:2}"
    echo "$* in $RUN_DIR: $SECONDS s"
}

classify() { # a backbone, and further options
    # Random weights have no features to spare, and a mean over many steps comes too late for them.
    local start=(--weights none --frozen-epochs 0 --learning-rate 1e-3 --batch-norm-momentum 0.9)
    [ -e "$WEIGHTS/${1}_weights_tf_dim_ordering_tf_kernels_notop.h5" ] && start=(--weights "$WEIGHTS")
    stage training.py --backbone-name "$1" "${start[@]}" "${PRECISION[@]}" "${@:2}"
    stage cls_predict.py --backbone-name "$1" "${@:2}"
}

beside() { # a name: the run folder of that name beside the run, with its masks and crops
    if [ ! -d "${RUN_DIR}_$1" ]; then
        mkdir -p "${RUN_DIR}_$1/made"
        cp -r "$RUN_DIR"/{config.json,decoded.json,unet,masks,crops} "${RUN_DIR}_$1"
        cp "$RUN_DIR"/made/{unet,masks,crops}*.json "${RUN_DIR}_$1/made"
    fi
    RUN_DIR=${RUN_DIR}_$1
}

for step in $STEPS; do
    case $step in
        segment)
            stage seg_train.py "${PLAIN[@]}"
            stage seg_predict.py
            ;;
        crop) stage resize.py ;;
        classify) for backbone in $BACKBONES; do classify "$backbone"; done ;;
        vote) stage vote.py --backbones $BACKBONES ;;
        folds) classify inception_v3 --folds 5 ;;
        ablations)
            for table in segmentation squeeze_excitation; do
                "$PYTHON" paper_tables.py $table "${SETTINGS[@]}" --run-dir "$RUN_DIR" --backbones inception_v3 \
                    --weights "$WEIGHTS" "${PRECISION[@]}" --splits training validation
            done
            ;;
        seeds) for seed in 1 2; do (beside seed_$seed && classify inception_v3 --seed $seed); done ;;
        extra)
            (
                beside extra
                stage seg_predict.py --extra-data-dir "$HAM10000"
                stage resize.py --extra-data-dir "$HAM10000"
                classify inception_v3 --extra-data-dir "$HAM10000"
            )
            ;;
        *)
            echo "$step is no step: choose from segment crop classify vote folds ablations seeds extra" >&2
            exit 2
            ;;
    esac
done
