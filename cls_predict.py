"""Stage 5 of 6: predict the diagnosis of every crop with one classifier; run it once for each backbone.

    python cls_predict.py --preset isic2017_256 --backbone-name xception

Reads   <run-dir>/backbones/<backbone>/model.keras
        <run-dir>/crops/<split>/<id>.png

Writes  <run-dir>/predictions/<backbone>_<split>.csv    image_id,melanoma,seborrheic_keratosis,nevus
        <run-dir>/predictions/<backbone>_config.json    the settings they were made with
"""

import sys

import stage
from made import Made


def main(config):
    from data.predictions import read_predictions, write_predictions
    from evaluation.metrics import summary

    name = config.backbone_name
    script = f"training.py --backbone-name {name}"
    network_file = stage.need(config.run_dir / "backbones" / name / "model.keras", script)
    images = {split: stage.images(config, split)[0] for split in config.splits}
    labels = {split: stage.labels(config, split, images[split]) for split in config.splits}
    crops = {split: stage.crop_paths(config, split, images[split]) for split in config.splits}
    network = None
    for split in config.splits:
        file = config.run_dir / "predictions" / f"{name}_{split}.csv"
        made_from = {"network": [network_file], "crops": crops[split]}
        made = Made(config, f"predictions_{name}_{split}", [], made_from, [file])
        if not made.up_to_date():
            network = network or stage.load_network(network_file, script)

            from data.batches import Batches, Lazy, bad_files_named
            from data.images import read_image

            stage.check_crops(crops[split], network.input_shape[1], config.workers)
            made.begin()
            batches = Batches(Lazy(read_image, crops[split]), batch_size=config.batch_size, workers=config.workers)
            with bad_files_named(batches):
                probabilities = network.predict(batches, verbose="auto" if sys.stdout.isatty() else 0)
            write_predictions(file, images[split], probabilities)
            made.finish()
            print(f"read {len(crops[split])} {split} crops, wrote {file}")
        if labels[split] is not None:
            print(f"{name} on {split}: {summary(labels[split], read_predictions(file, images[split]))}")
    stage.save_settings(config, config.run_dir / "predictions" / f"{name}_config.json")


if __name__ == "__main__":
    stage.run(main, __doc__)
