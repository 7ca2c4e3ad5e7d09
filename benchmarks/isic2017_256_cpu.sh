#!/usr/bin/env bash
# The README's runs on the 256x256 copy of ISIC 2017: all 2750 images, two CPU cores, random weights, a token budget.
#
#     benchmarks/isic2017_256_cpu.sh ../shared/isic2017
#     RUN_DIR=runs/isic2017_256_folds FOLDS=5 BACKBONES="resnet50 inception_v3" \
#         benchmarks/isic2017_256_cpu.sh ../shared/isic2017
#
# PYTHON names the interpreter (default: the virtual environment of `make`); STAGES picks some of the stages.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
STAGES=${STAGES:-seg_train seg_predict resize training cls_predict vote report}
BACKBONES=${BACKBONES:-resnet50 densenet169 inception_v3 inception_resnet_v2 xception}
SETTINGS=(--preset isic2017_256 --data-dir "$1" --run-dir "${RUN_DIR:-runs/isic2017_256}" --unet-epochs 16
    --image-size 96 --weights none --epochs 3 --learning-rate 1e-3 --batch-norm-momentum 0.9
    --folds "${FOLDS:-0}" --backbones $BACKBONES)

for stage in $STAGES; do
    SECONDS=0
    case $stage in
        training | cls_predict)
            for backbone in $BACKBONES; do
                "$PYTHON" "$stage.py" "${SETTINGS[@]}" --backbone-name "$backbone"
                echo "$stage $backbone: $SECONDS s since this stage began"
            done
            ;;
        *) "$PYTHON" "$stage.py" "${SETTINGS[@]}" ;;
    esac
    echo "$stage took $SECONDS s"
done
