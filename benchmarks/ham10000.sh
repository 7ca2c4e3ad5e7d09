#!/usr/bin/env bash
# Train and measure classifiers of HAM10000's seven classes, on crops by a U-Net of ISIC 2017.
#
#     benchmarks/ham10000.sh HAM10000 UNET WEIGHTS [HAM_MASKS]
#
# HAM10000 is its folder as it comes. UNET is the run folder, or the file, of a U-Net trained on ISIC 2017. WEIGHTS is a
# folder with Keras's weight files. HAM_MASKS, the masks of HAM10000, only measure the segmentation. The same command
# continues an interrupted run. Environment variables: BACKBONES and EPOCHS choose networks and epochs, OPTIONS adds
# options to every stage, DATA is the folder of the table, RUN_DIR the run folder, PYTHON the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
RUN_DIR=${RUN_DIR:-runs/ham10000}
DATA=${DATA:-data/ham10000_table}
BACKBONES=${BACKBONES:-inception_v3}
EPOCHS=${EPOCHS:-4}
HAM10000=$1 UNET=$2 WEIGHTS=$3 HAM_MASKS=${4:-}
# Crops of 128 pixels: an epoch of 7000 images takes some minutes on two cores.
SETTINGS=(--preset fine_tuned --data-dir "$DATA" --run-dir "$RUN_DIR" --image-size 128 --epochs "$EPOCHS")
SETTINGS+=(--no-test-time-augmentation --allow-duplicates ${OPTIONS:-})

stage() {
    SECONDS=0
    "$PYTHON" "$1" "${SETTINGS[@]}" "${@:2}"
    echo "$*: $SECONDS s"
}

if [ ! -e "$DATA/dataset.csv" ]; then
    "$PYTHON" -m data.prepare ham10000 "$HAM10000" --output "$DATA" ${HAM_MASKS:+--masks "$HAM_MASKS"}
fi
stage seg_predict.py --unet "$UNET"
stage resize.py
for backbone in $BACKBONES; do
    stage training.py --backbone-name "$backbone" --weights "$WEIGHTS"
    stage cls_predict.py --backbone-name "$backbone"
done
stage vote.py --backbones $BACKBONES
stage report.py --backbones $BACKBONES
for split in validation test; do
    "$PYTHON" evaluate.py "$RUN_DIR"/predictions/{mean,vote}_$split.csv --labels "$DATA/dataset.csv" --split $split \
        --by sex --by age --output "$RUN_DIR/results/evaluation_$split"
done
