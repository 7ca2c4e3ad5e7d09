"""Stage 5 of 6: predict the diagnosis of every crop with one classifier; run it once for each backbone.

    python cls_predict.py --preset isic2017_256 --backbone-name xception

Reads   <run-dir>/backbones/<backbone>/model.keras
        <run-dir>/crops/<split>/<id>.png
Writes  <run-dir>/predictions/<backbone>_<split>.csv    image_id,melanoma,seborrheic_keratosis,nevus
        <run-dir>/predictions/<backbone>_config.json    the settings they were made with
"""

import sys

import stage


def main(config):
    name = config.backbone_name
    network = stage.load_network(
        config.run_dir / "backbones" / name / "model.keras", f"training.py --backbone-name {name}"
    )

    from data.batches import Batches, Lazy
    from data.images import read_image
    from data.isic2017 import image_paths, read_labels
    from data.predictions import write_predictions
    from metrics import summary

    size = network.input_shape[1]
    images = {split: image_paths(config.data_dir, split) for split in config.splits}
    labels = {split: read_labels(config.data_dir, split, images[split]) for split in config.splits}
    crops = {split: stage.crop_paths(config, split, images[split], size) for split in config.splits}
    for split in config.splits:
        batches = Batches(Lazy(read_image, crops[split]), batch_size=config.batch_size, workers=config.workers)
        probabilities = network.predict(batches, verbose="auto" if sys.stdout.isatty() else 0)
        file = config.run_dir / "predictions" / f"{name}_{split}.csv"
        write_predictions(file, images[split], probabilities)
        print(f"read {len(crops[split])} {split} crops, wrote {file}")
        if labels[split] is not None:
            print(f"{name} on {split}: {summary(labels[split], probabilities)}")
    stage.save_settings(config, config.run_dir / "predictions" / f"{name}_config.json")


if __name__ == "__main__":
    stage.run(main, __doc__)
