"""Stage 6 of 6: fit the voting network on the classifiers' predictions, and measure everything.

    python vote.py --preset isic2017_256

Reads   <run-dir>/predictions/<backbone>_<split>.csv
        <data-dir>/ISIC-2017_*_Part3_GroundTruth.csv    a split without labels gets predictions and no metrics
        <run-dir>/{unet,backbones/<backbone>}/history.csv    for the training curves

Writes  <run-dir>/vote/vote.keras, history.csv, config.json
        <run-dir>/predictions/{mean,vote}_<split>.csv
        <run-dir>/results/metrics.json, metrics.md      per backbone, mean of the backbones, vote, prior
        <run-dir>/results/roc_<split>.png, training_curves.png
"""

import json

import stage
from made import Made


def main(config):
    files = {
        (name, split): stage.need(
            config.run_dir / "predictions" / f"{name}_{split}.csv", f"cls_predict.py --backbone-name {name}"
        )
        for name in config.backbones
        for split in sorted({*config.splits, "training", "validation"})
    }

    from data.isic2017 import CLASSES, label_table

    folder, results = config.run_dir / "vote", config.run_dir / "results"
    outputs = [folder / "vote.keras", folder / "history.csv", folder / "config.json"]
    outputs += [results / "metrics.json", results / "metrics.md", results / "training_curves.png"]
    outputs += [
        config.run_dir / "predictions" / f"{m}_{split}.csv" for m in ("mean", "vote") for split in config.splits
    ]
    tables = [label_table(config.data_dir, split) for _, split in files]
    made_from = {"predictions": files.values(), "labels": tables}
    made = Made(config, "vote", ["vote_", "backbones", "splits", "seed"], made_from, outputs)
    if made.up_to_date():
        print((results / "metrics.md").read_text())
        return

    import keras
    import numpy as np
    import pandas as pd

    from data.files import whole_file
    from data.predictions import read_predictions, write_predictions
    from evaluation.metrics import diagnosis_metrics, metrics_tables
    from evaluation.plots import curves, save, training_curves
    from models.fitting import save_network
    from models.vote import vote_network

    keras.utils.set_random_seed(config.seed)
    images, labels, ballots = {}, {}, {}
    for split in dict.fromkeys(split for _, split in files):
        images[split], _ = stage.images(config, split)
        labels[split] = stage.labels(config, split, images[split], required=split != "test")
        single = [read_predictions(files[name, split], images[split]) for name in config.backbones]
        ballots[split] = np.stack(single, axis=-1)  # (images, classes, voters)
        print(f"read {len(single)} predictions of {len(images[split])} {split} images")

    made.begin()
    fitted = config.vote_fit_split
    watched = "validation" if fitted == "training" else "training"
    network = vote_network(len(config.backbones), len(CLASSES), config.vote_filters)
    network.compile(optimizer=keras.optimizers.Adam(config.vote_learning_rate), loss="categorical_crossentropy")
    history = network.fit(
        ballots[fitted],
        labels[fitted],
        validation_data=(ballots[watched], labels[watched]),
        batch_size=config.vote_batch_size,
        epochs=config.vote_epochs,
        verbose=0,
    )
    print(f"fitted the vote ({network.count_params()} parameters) on the {fitted} split in {config.vote_epochs} epochs")

    stage.save_settings(config, folder / "config.json")
    save_network(network, folder / "vote.keras")
    with whole_file(folder / "history.csv") as part:
        pd.DataFrame({"epoch": np.add(history.epoch, 1)} | history.history).to_csv(part, index=False)

    metrics = {}
    for split in config.splits:
        methods = {name: ballots[split][..., k] for k, name in enumerate(config.backbones)}
        methods["mean"] = ballots[split].mean(axis=-1)
        methods["vote"] = network.predict(ballots[split], verbose=0)
        for name in ("mean", "vote"):
            write_predictions(config.run_dir / "predictions" / f"{name}_{split}.csv", images[split], methods[name])
        if labels[split] is None:
            print(f"{split}: no labels, so predictions only")
            continue
        save(curves("roc", labels[split], methods), results / f"roc_{split}.png")
        # The floor that any method has to beat: the training split's class frequencies, whatever the image.
        methods["prior"] = np.tile(labels["training"].mean(axis=0), (len(images[split]), 1))
        metrics[split] = {name: diagnosis_metrics(labels[split], values) for name, values in methods.items()}
    with whole_file(results / "metrics.json") as part:
        part.write_text(json.dumps(metrics, indent=2) + "\n")
    tables = metrics_tables(metrics)
    with whole_file(results / "metrics.md") as part:
        part.write_text(tables)
    trained = {"unet": config.run_dir / "unet", "vote": folder}
    trained |= {name: config.run_dir / "backbones" / name for name in config.backbones}
    histories = {name: path / "history.csv" for name, path in trained.items()}
    histories = {name: pd.read_csv(file) for name, file in histories.items() if file.exists()}
    save(training_curves(histories), results / "training_curves.png")
    print(f"wrote {folder}, the mean's and the vote's predictions, and {results}/metrics.json and metrics.md\n")
    made.finish()
    print(tables)


if __name__ == "__main__":
    stage.run(main, __doc__)
