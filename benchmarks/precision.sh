#!/usr/bin/env bash
# bfloat16 against float32: the U-Net of isic2017_256, and inception_v3 on crops by true masks, from the same seed.
#
#     benchmarks/precision.sh DATA WEIGHTS [RUNS]
#
# DATA is ISIC 2017 in the official layout, WEIGHTS a folder with Keras's weight file of inception_v3, RUNS the folder
# of the two runs (runs/precision). Training is short: 6 epochs of the U-Net, 1 + 5 of inception_v3 at 128 pixels. The
# same command continues an interrupted run. It prints segmentation.json of both runs, then the table of both networks.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
DATA=$1 WEIGHTS=$2 RUNS=${3:-runs/precision}
for precision in bfloat16 float32; do
    common=(--data-dir "$DATA" --run-dir "$RUNS/$precision" --splits training validation --mixed-precision $precision)
    unet=(--preset isic2017_256 "${common[@]}" --unet-epochs 6)
    crops=(--preset fine_tuned "${common[@]}" --masks ground_truth --image-size 128)
    "$PYTHON" seg_train.py "${unet[@]}"
    "$PYTHON" seg_predict.py "${unet[@]}" --splits validation
    "$PYTHON" resize.py "${crops[@]}"
    "$PYTHON" training.py "${crops[@]}" --backbone-name inception_v3 --weights "$WEIGHTS" --epochs 5
    "$PYTHON" cls_predict.py "${crops[@]}" --backbone-name inception_v3 --splits validation
done
for precision in bfloat16 float32; do cat "$RUNS/$precision/results/segmentation.json"; done
"$PYTHON" evaluate.py "$RUNS"/{bfloat16,float32}/predictions/inception_v3_validation.csv \
    --labels "$DATA/ISIC-2017_Validation_Part3_GroundTruth.csv"
