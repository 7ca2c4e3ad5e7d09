#!/usr/bin/env bash
# The README's results: all 2750 images of ISIC 2017 at 256x256 with the recipe of the preset fine_tuned, on a CPU.
#
#     benchmarks/isic2017_256.sh DATA WEIGHTS [HAM10000]
#
# DATA is the data set in the official layout, WEIGHTS a folder with Keras's weight files of xception and inception_v3;
# the other backbones start from random weights. Every step goes on where it was interrupted, and is done at once where
# nothing changed, so the same command may be given again and again. STEPS picks some of the steps, BACKBONES some of the
# backbones; RUN_DIR, RESULTS and PYTHON name the run folder, the folder of the results and the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
RUN_DIR=${RUN_DIR:-runs/fine_tuned}
STEPS=${STEPS:-segment crop classify vote}
BACKBONES=${BACKBONES:-xception inception_v3}
SETTINGS=(--preset fine_tuned --data-dir "$1" --run-dir "$RUN_DIR")
# The U-Net sees flips, turns and shifts alone.
PLAIN=(--augment-zoom 0 --augment-brightness 0 --augment-contrast 0 --augment-saturation 0 --augment-hue 0)

stage() {
    SECONDS=0
    "$PYTHON" "$@"
    echo "$*: $SECONDS s"
}

for step in $STEPS; do
    case $step in
        segment)
            stage seg_train.py "${SETTINGS[@]}" "${PLAIN[@]}"
            stage seg_predict.py "${SETTINGS[@]}"
            ;;
        crop) stage resize.py "${SETTINGS[@]}" ;;
        classify)
            for backbone in $BACKBONES; do
                # Random weights have no features to spare, and a mean over many steps comes too late for them.
                start=(--weights none --frozen-epochs 0 --learning-rate 1e-3 --batch-norm-momentum 0.9)
                [ -e "$2/${backbone}_weights_tf_dim_ordering_tf_kernels_notop.h5" ] && start=(--weights "$2")
                # bfloat16 is a third faster on a CPU with AMX; elsewhere leave it out.
                stage training.py "${SETTINGS[@]}" --backbone-name "$backbone" "${start[@]}" \
                    --mixed-precision bfloat16
                stage cls_predict.py "${SETTINGS[@]}" --backbone-name "$backbone"
            done
            ;;
        vote) stage vote.py "${SETTINGS[@]}" --backbones $BACKBONES ;;
        *)
            echo "$step is no step: choose from segment crop classify vote" >&2
            exit 2
            ;;
    esac
done
