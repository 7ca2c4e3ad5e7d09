"""Stage 5 of 6: predict the diagnosis of every crop with one classifier; run it once for each backbone.

    python cls_predict.py --preset isic2017_256 --backbone-name xception
    python cls_predict.py --preset isic2017_256 --backbone-name xception --folds 5    # and with its fold networks

Reads   <run-dir>/backbones/<backbone>/model.keras
        <run-dir>/crops/<split>/<id>.png
        <run-dir>/backbones/<backbone>/fold_<k>/model.keras, held_out.csv    with --folds

Writes  <run-dir>/predictions/<backbone>_<split>.csv          image_id,melanoma,seborrheic_keratosis,nevus
        <run-dir>/predictions/<backbone>_training_oof.csv     with --folds: the training images, each predicted by the
                                                              network that it was held out from (out of fold)
        <run-dir>/predictions/<backbone>_config.json          the settings they were made with
"""

import stage
from errors import InputError
from made import Made


def main(config):
    from data.predictions import read_predictions, write_predictions
    from evaluation.metrics import summary

    name = config.backbone_name
    script = f"training.py --backbone-name {name}"
    network_file = stage.need(stage.backbone_folder(config) / "model.keras", script)
    images = {split: stage.images(config, split)[0] for split in config.splits}
    labels = {split: stage.labels(config, split, images[split]) for split in config.splits}
    crops = {split: stage.crop_paths(config, split, images[split]) for split in config.splits}
    network = None
    for split in config.splits:
        file = config.run_dir / "predictions" / f"{name}_{split}.csv"
        made_from = {"network": [network_file], "crops": crops[split]}
        remedy = f"cls_predict.py --backbone-name {name}"
        made = Made(config, f"predictions_{name}_{split}", "predictions", remedy, made_from, [file])
        if not made.up_to_date():
            network = network or stage.load_predictor(config, network_file, script, name)
            stage.check_crops(crops[split], network.input_shape[1], config)
            made.begin()
            write_predictions(file, images[split], probabilities_of(config, network, crops[split]))
            stage.save_settings(config, config.run_dir / "predictions" / f"{name}_config.json")
            made.finish()
            print(f"read {len(crops[split])} {split} crops, wrote {file}")
        if labels[split] is not None:
            print(f"{name} on {split}: {summary(labels[split], read_predictions(file, images[split]))}")
    if config.folds:
        predict_out_of_fold(config, script)


def predict_out_of_fold(config, script):
    """Predict each training image with the network that it was held out from.

    Raises:
        InputError: if such a network is missing, or was trained on other folds.
    """
    from data.isic2017 import read_table
    from data.predictions import read_predictions, write_predictions
    from evaluation.metrics import summary

    script = f"{script} --folds {config.folds}"
    images, _ = stage.images(config, "training")
    labels = stage.labels(config, "training", images, required=True)
    crops = dict(zip(images, stage.crop_paths(config, "training", images), strict=True))
    fold_of = stage.folds(config, images, labels)
    held_out = {fold: [i for i in images if fold_of[i] == fold] for fold in range(1, config.folds + 1)}
    folders = {fold: stage.backbone_folder(config, fold) for fold in held_out}
    for fold, folder in folders.items():
        stage.need(folder / "model.keras", script)
        unseen = read_table(stage.need(folder / "held_out.csv", script), ["image_id"])
        if list(unseen.index) != held_out[fold]:
            raise InputError(
                f"{folder} was trained on other folds than those of folds.csv: "
                f"run `python {script} --fold {fold} --overwrite`"
            )

    file = config.run_dir / "predictions" / f"{config.backbone_name}_training_oof.csv"
    made_from = {"networks": [folder / "model.keras" for folder in folders.values()], "crops": crops.values()}
    made_from["folds"] = [config.run_dir / "folds.csv"]
    name, remedy = f"predictions_{config.backbone_name}_training_oof", script.replace("training.py", "cls_predict.py")
    made = Made(config, name, "predictions", remedy, made_from, [file])
    if not made.up_to_date():
        made.begin()
        found = {}
        for fold, folder in folders.items():
            network = stage.load_predictor(config, folder / "model.keras", script, config.backbone_name)
            stage.check_crops(crops.values(), network.input_shape[1], config)
            probabilities = probabilities_of(config, network, [crops[image_id] for image_id in held_out[fold]])
            found |= zip(held_out[fold], probabilities, strict=True)
        write_predictions(file, images, [found[image_id] for image_id in images])
        made.finish()
        print(f"read {len(images)} training crops and {config.folds} networks, wrote {file}")
    print(f"{config.backbone_name} out of fold: {summary(labels, read_predictions(file, images))}")


def probabilities_of(config, network, crops):
    """Probabilities (images, classes), float32, of some crops."""
    import numpy as np
    from tqdm import tqdm

    from data.images import read_image
    from data.lesion import without_border
    from models.prediction import predict

    size = network.input_shape[1]
    found = predict(
        network, lambda path: without_border(read_image(path), size), crops, config.batch_size, config.workers
    )
    return np.stack(list(tqdm(found, config.backbone_name, len(crops), unit="image", disable=None)))


if __name__ == "__main__":
    stage.run(main, __doc__)
