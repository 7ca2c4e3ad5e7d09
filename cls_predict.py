"""Stage 5 of 6: predict the diagnosis of every crop with one classifier; run it once for each backbone.

    python cls_predict.py --preset isic2017_256 --backbone-name xception
    python cls_predict.py --preset isic2017_256 --backbone-name xception --folds 5    # and with its fold networks

Reads   <run-dir>/backbones/<backbone>/model.keras
        <run-dir>/crops/<split>/<id>.png
        <run-dir>/backbones/<backbone>/fold_<k>/model.keras, held_out.csv    with --folds

Writes  <run-dir>/predictions/<backbone>_<split>.csv          image_id,melanoma,seborrheic_keratosis,nevus
        <run-dir>/predictions/<backbone>_training_oof.csv     with --folds: the training images, each predicted by the
                                                              network that it was held out from (out of fold)
        <run-dir>/predictions/<backbone>_folds_<split>.csv    with --folds: the other splits, by the mean of the fold
                                                              networks
        <run-dir>/predictions/<backbone>_config.json          the settings they were made with
"""

from config import write_settings
from data.errors import InputError
from pipeline import command_line, inputs
from pipeline.made import Made
from pipeline.networks import load_predictor


def main(config):
    from data.probabilities import read_probabilities, write_probabilities
    from evaluation.metrics import summary

    name = config.backbone_name
    script = f"training.py --backbone-name {name}"
    network_file = inputs.need(inputs.backbone_folder(config) / "model.keras", script)
    images = {split: inputs.images(config, split)[0] for split in config.splits}
    labels = {split: inputs.labels(config, split, images[split]) for split in config.splits}
    crops = {split: inputs.crop_paths(config, split, images[split]) for split in config.splits}
    network = None
    for split in config.splits:
        file = config.run_dir / "predictions" / f"{name}_{split}.csv"
        made_from = {"network": [network_file], "crops": crops[split]}
        remedy = f"cls_predict.py --backbone-name {name}"
        made = Made(config, f"predictions_{name}_{split}", "predictions", remedy, made_from, [file])
        if not made.up_to_date():
            network = network or load_predictor(config, network_file, script, name)
            inputs.check_crops(crops[split], network.input_shape[1], config)
            made.begin()
            write_probabilities(file, images[split], probabilities_of(config, network, crops[split]))
            write_settings(config, config.run_dir / "predictions" / f"{name}_config.json")
            made.finish()
            print(f"read {len(crops[split])} {split} crops, wrote {file}")
        if labels[split] is not None:
            print(f"{name} on {split}: {summary(labels[split], read_probabilities(file, images[split]))}")
    if config.folds:
        predict_with_folds(config, images, labels, crops)


def predict_with_folds(config, images, labels, crops):
    """Predict with the fold networks: each training image with the one that it was held out from, the images of every
    other split with the mean of all of them.

    Args:
        config: the settings.
        images, labels, crops: dictionaries from split to image ids, one-hot labels (or None) and paths of the crops.

    Raises:
        InputError: if such a network is missing, or was trained on other folds.
    """
    import numpy as np

    from data.isic2017 import read_table
    from data.probabilities import read_probabilities, write_probabilities
    from evaluation.metrics import summary

    name, options = config.backbone_name, f"--backbone-name {config.backbone_name} --folds {config.folds}"
    images = {**images, "training": inputs.images(config, "training")[0]}
    labels = {**labels, "training": inputs.labels(config, "training", images["training"], required=True)}
    crops = {**crops, "training": inputs.crop_paths(config, "training", images["training"])}
    fold_of = inputs.folds(config, images["training"], labels["training"])
    held_out = {fold: [i for i in images["training"] if fold_of[i] == fold] for fold in range(1, config.folds + 1)}
    folders = {fold: inputs.backbone_folder(config, fold) for fold in held_out}
    for fold, folder in folders.items():
        inputs.need(folder / "model.keras", f"training.py {options}")
        unseen = read_table(inputs.need(folder / "held_out.csv", f"training.py {options}"), ["image_id"])
        if list(unseen.index) != held_out[fold]:
            raise InputError(
                f"{folder} was trained on other folds than those of folds.csv: "
                f"run `python training.py {options} --fold {fold} --overwrite`"
            )

    tables = {"training": f"{name}_training_oof"}
    tables |= {split: f"{name}_folds_{split}" for split in config.splits if split != "training"}
    files = {split: config.run_dir / "predictions" / f"{table}.csv" for split, table in tables.items()}
    made_from = {"networks": [folder / "model.keras" for folder in folders.values()]}
    made_from |= {f"{split} crops": crops[split] for split in tables} | {"folds": [config.run_dir / "folds.csv"]}
    remedy = f"cls_predict.py {options}"
    made = Made(config, f"predictions_{name}_folds", "predictions", remedy, made_from, files.values())
    if not made.up_to_date():
        made.begin()
        out_of_fold, sums = {}, dict.fromkeys(tables, 0)
        for fold, folder in folders.items():
            network = load_predictor(config, folder / "model.keras", f"training.py {options}", name)
            for split in tables:
                inputs.check_crops(crops[split], network.input_shape[1], config)
                chosen = dict(zip(images[split], crops[split], strict=True))
                if split == "training":
                    chosen = {image_id: chosen[image_id] for image_id in held_out[fold]}
                found = probabilities_of(config, network, list(chosen.values()))
                if split == "training":
                    out_of_fold |= zip(chosen, found, strict=True)
                else:
                    sums[split] = sums[split] + found.astype(np.float64)
        sums["training"] = [out_of_fold[image_id] for image_id in images["training"]]
        for split, file in files.items():
            write_probabilities(file, images[split], sums[split])  # which divides by the sum of each row
        made.finish()
        print(f"read {config.folds} networks and the crops of {', '.join(tables)}, wrote {', '.join(tables.values())}")
    for split, file in files.items():
        if labels[split] is not None:
            how = "out of fold" if split == "training" else f"by the mean of its folds on {split}"
            print(f"{name} {how}: {summary(labels[split], read_probabilities(file, images[split]))}")


def probabilities_of(config, network, crops):
    """Probabilities (images, classes), float32, of some crops."""
    import numpy as np
    from tqdm import tqdm

    from data.images import read_image
    from data.lesion import without_border
    from pipeline.inference import infer

    size = network.input_shape[1]
    found = infer(
        network, lambda path: without_border(read_image(path), size), crops, config.batch_size, config.workers
    )
    return np.stack(list(tqdm(found, config.backbone_name, len(crops), unit="image", disable=None)))


if __name__ == "__main__":
    command_line.run(main, __doc__)
