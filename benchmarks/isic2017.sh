#!/usr/bin/env bash
# Train and measure the preset fine_tuned on all 2750 images of ISIC 2017, on a CPU.
#
#     benchmarks/isic2017.sh DATA WEIGHTS [HAM10000 HAM_MASKS]
#
# DATA is the data set in the official layout. WEIGHTS is a folder with Keras's weight files. The U-Net needs that of
# densenet169; another backbone without a file there starts from random weights. The files of inception_v3 and resnet50
# are those that benchmarks/unfold_batch_norm.py wrote. HAM10000 and HAM_MASKS are the folders of HAM10000 and of its
# masks. The same command continues an interrupted run and skips finished steps. Environment variables: STEPS and
# BACKBONES choose some of the steps and networks, OPTIONS adds options to every stage, RUN_DIR is the run folder, PYTHON
# the interpreter.
#
#     segment crop classify vote    the run
#     folds                         five fold networks of each backbone, and the methods fitted out of fold
#     ham ham_folds                 both of these in RUN_DIR_ham, with HAM10000 and its masks, also for the U-Net
#     ham_classify                  only the classifiers with HAM10000, on the crops of the run, in RUN_DIR_ham_classify
#     ablations                     inception_v3 on whole frames, on crops by true masks, and without SE blocks
#     seeds                         inception_v3 with two other seeds, in RUN_DIR_seed_<seed>
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
RUN_DIR=${RUN_DIR:-runs/fine_tuned}
STEPS=${STEPS:-segment crop classify vote}
BACKBONES=${BACKBONES:-densenet169 xception inception_v3 resnet50}
DATA=$1 WEIGHTS=$2 HAM10000=${3:-} HAM_MASKS=${4:-}
SETTINGS=(--preset fine_tuned --data-dir "$DATA" ${OPTIONS:-})

stage() {
    SECONDS=0
    "$PYTHON" "$1" "${SETTINGS[@]}" --run-dir "$RUN_DIR" "${@:2}"
    echo "$* in $RUN_DIR: $SECONDS s"
}

train() { # a backbone, and further options
    # Random weights: train everything from the start, with a higher rate and faster moving statistics.
    local start=(--weights none --frozen-epochs 0 --learning-rate 1e-3 --batch-norm-momentum 0.9)
    [ -e "$WEIGHTS/${1}_weights_tf_dim_ordering_tf_kernels_notop.h5" ] && start=(--weights "$WEIGHTS")
    stage training.py --backbone-name "$1" "${start[@]}" "${@:2}"
}

segment() {
    stage seg_train.py --weights "$WEIGHTS"
    stage seg_predict.py
}

classify() { # a backbone, and further options
    train "$@"
    stage cls_predict.py --backbone-name "$1" "${@:2}"
}

vote() { # skipped if the vote with folds exists: it measures the same methods and more
    [ -e "$RUN_DIR/vote/vote_oof.keras" ] || stage vote.py --backbones $BACKBONES
}

folds() {
    for fold in 1 2 3 4 5; do
        for backbone in $BACKBONES; do train "$backbone" --folds 5 --fold $fold; done
    done
    for backbone in $BACKBONES; do stage cls_predict.py --backbone-name "$backbone" --folds 5; done
    stage vote.py --backbones $BACKBONES --folds 5
}

with_ham() { # further images for training
    SETTINGS+=(--extra-data-dir "${HAM10000:?name the folder of HAM10000}")
    SETTINGS+=(--extra-mask-dir "${HAM_MASKS:?name the folder of its masks}")
}

beside() { # a name: set RUN_DIR to RUN_DIR_name, a folder that starts with the masks and crops of the run
    local folder=${RUN_DIR}_$1
    if [ ! -d "$folder" ]; then
        rm -rf "$folder.part"
        mkdir -p "$folder.part"/{manifests,results}
        cp -r "$RUN_DIR"/{config.json,decoded.json,unet,masks,crops} "$folder.part"
        cp "$RUN_DIR"/results/{crops,segmentation}_* "$folder.part/results"
        cp "$RUN_DIR"/manifests/{unet,masks,crops}*.jsonl "$folder.part/manifests"
        mv "$folder.part" "$folder"
    fi
    RUN_DIR=$folder
}

for step in $STEPS; do
    case $step in
        segment) segment ;;
        crop) stage resize.py ;;
        classify) for backbone in $BACKBONES; do classify "$backbone"; done ;;
        vote) vote ;;
        folds) folds ;;
        ham)
            (
                with_ham
                RUN_DIR=${RUN_DIR}_ham
                segment
                stage resize.py
                for backbone in $BACKBONES inception_resnet_v2; do classify "$backbone"; done
                BACKBONES="$BACKBONES inception_resnet_v2" vote
            )
            ;;
        ham_folds) (with_ham; RUN_DIR=${RUN_DIR}_ham; folds) ;;
        ham_classify)
            (
                with_ham
                beside ham_classify
                stage resize.py
                for backbone in $BACKBONES; do classify "$backbone"; done
            )
            ;;
        ablations)
            for table in segmentation squeeze_excitation; do
                "$PYTHON" paper_tables.py $table "${SETTINGS[@]}" --run-dir "$RUN_DIR" --backbones inception_v3 \
                    --weights "$WEIGHTS" --splits training validation
            done
            ;;
        seeds) for seed in 1 2; do (beside seed_$seed; classify inception_v3 --seed $seed); done ;;
        *)
            echo "unknown step $step: choose from segment crop classify vote folds ham ham_folds ham_classify ablations seeds" >&2
            exit 2
            ;;
    esac
done
