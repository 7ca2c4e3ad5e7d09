"""Stage 6 of 6: fit the voting network on the classifiers' predictions, and measure everything.

    python vote.py --preset isic2017_256
    python vote.py --preset isic2017_256 --folds 5    # and the vote fitted on out-of-fold predictions

Reads   <run-dir>/predictions/<backbone>_<split>.csv
        <run-dir>/predictions/<backbone>_training_oof.csv    with --folds
        <data-dir>/ISIC-2017_*_Part3_GroundTruth.csv    a split without labels gets predictions and no metrics
        <run-dir>/{unet,backbones/<backbone>}/history.csv    for the training curves

Writes  <run-dir>/vote/vote.keras, history.csv            the published vote
        <run-dir>/vote/vote_oof.keras, history_oof.csv    with --folds: the same network, fitted out of fold
        <run-dir>/vote/stacking.json, config.json         the logistic regression's weights; the settings
        <run-dir>/predictions/{mean,stacking,vote,vote_oof}_<split>.csv
        <run-dir>/results/metrics.json, metrics.md        of each backbone, the best of them, these four, and the prior
        <run-dir>/results/roc_<split>.png, training_curves.png
"""

import json
from functools import partial

import stage
from made import Made


def main(config):
    from data.isic2017 import label_table
    from evaluation.tables import headlines

    # Of the training split there are two tables with --folds: training_oof is by networks that had not seen the image.
    splits = sorted({*config.splits, "training", "validation"})
    folded = f".py --folds {config.folds}" if config.folds else ".py"
    files = {
        (name, table): stage.need(
            config.run_dir / "predictions" / f"{name}_{table}.csv", f"cls_predict{folded} --backbone-name {name}"
        )
        for name in config.backbones
        for table in [*splits, *(["training_oof"] if config.folds else [])]
    }
    folder, results = config.run_dir / "vote", config.run_dir / "results"
    outputs = [folder / name for name in ("vote.keras", "history.csv", "stacking.json", "config.json")]
    outputs += [folder / name for name in ("vote_oof.keras", "history_oof.csv") if config.folds]
    outputs += [results / name for name in ("metrics.json", "metrics.md", "training_curves.png")]
    methods = ["mean", "stacking", "vote", *(["vote_oof"] if config.folds else [])]
    outputs += [config.run_dir / "predictions" / f"{m}_{split}.csv" for m in methods for split in config.splits]
    outputs += [results / f"roc_{s}.png" for s in config.splits if label_table(config.data_dir, s).exists()]
    made_from = {"predictions": files.values(), "labels": [label_table(config.data_dir, split) for split in splits]}
    made_from["histories"] = trained(config).values()
    made = Made(config, "vote", "vote", f"vote{folded}", made_from, outputs, agree=["folds"])
    if made.up_to_date():
        print(headlines(json.loads((results / "metrics.json").read_text())))
        return
    images, labels, ballots = read_ballots(config, files)
    stage.read_histories(trained(config))
    import evaluation.plots  # noqa: F401
    import models.vote  # noqa: F401  both may fail, a backend that is not there for one

    made.begin()
    predictions = predict(config, images, ballots, fit(config, labels, ballots))
    evaluate(config, labels, predictions, best_single(config, labels["validation"], ballots["validation"]))
    made.finish()
    print(headlines(json.loads((results / "metrics.json").read_text())))


def read_ballots(config, files):
    """Read what the backbones predicted.

    Args:
        files: dictionary from (backbone, table) to its file; a table is a split, or training_oof.

    Returns:
        Three dictionaries, from each table to the image ids, to one-hot labels (images, classes) or None, and to
        probabilities (images, classes, voters), all in the same order.
    """
    import numpy as np

    from data.isic2017 import read_labels, read_table
    from data.predictions import read_predictions

    images, labels, ballots = {}, {}, {}
    for table in dict.fromkeys(table for _, table in files):
        split = table.removesuffix("_oof")
        # Which images are in use is what the tables say; one that lacks some is refused when it is read.
        tables = [read_table(files[name, table], ["image_id"]) for name in config.backbones]
        images[table] = sorted(set().union(*(rows.index for rows in tables)))
        labels[table] = read_labels(config.data_dir, split, images[table], left_out=None, required=split != "test")
        single = [read_predictions(files[name, table], images[table]) for name in config.backbones]
        ballots[table] = np.stack(single, axis=-1)
        print(f"read {len(single)} {table} predictions of {len(images[table])} images")
    return images, labels, ballots


def fit(config, labels, ballots):
    """Fit the regression and the votes, and write them.

    Returns:
        Dictionary from method to a function that makes probabilities (images, classes) of (images, classes, voters).
    """
    import numpy as np
    import pandas as pd

    from data.files import whole_file
    from models.fitting import save_network
    from models.stacking import fit_stacking, stack

    folder, tables = config.run_dir / "vote", fitted_on(config)
    stage.save_settings(config, folder / "config.json")
    stage.say_once(f"computing with {stage.computed_with()}")
    fitted = tables.pop("stacking")
    stacking = fit_stacking(ballots[fitted], labels[fitted], config.stacking_c)
    with whole_file(folder / "stacking.json") as part:
        part.write_text(json.dumps({"backbones": config.backbones, **stacking}, indent=2) + "\n")
    print(f"fitted the stacking on the {fitted} predictions")

    methods = {"mean": partial(np.mean, axis=-1), "stacking": partial(stack, stacking)}
    for name, fitted in tables.items():
        watched = "training" if fitted == "validation" else "validation"
        network, history = fit_vote(config, *((ballots[table], labels[table]) for table in (fitted, watched)))
        print(f"fitted the {name} ({network.count_params()} parameters) on the {fitted} predictions")
        save_network(network, folder / f"{name}.keras")
        with whole_file(folder / f"history{name.removeprefix('vote')}.csv") as part:
            pd.DataFrame({"epoch": np.add(history.epoch, 1)} | history.history).to_csv(part, index=False)
        methods[name] = partial(network.predict, verbose=0)
    return methods


def fitted_on(config):
    """From every method that is fitted to the table of predictions that it is fitted on."""
    published = config.vote_fit_split
    if not config.folds:
        return {"stacking": published, "vote": published}
    return {"stacking": "training_oof", "vote": published, "vote_oof": "training_oof"}


def fit_vote(config, fitted, watched):
    """Fit a voting network on one pair of ballots and labels, its loss watched on another: network and history."""
    import keras

    from models.vote import vote_network

    keras.utils.set_random_seed(config.seed)
    _, classes, voters = fitted[0].shape
    network = vote_network(voters, classes, config.vote_filters)
    network.compile(optimizer=keras.optimizers.Adam(config.vote_learning_rate), loss="categorical_crossentropy")
    history = network.fit(
        *fitted, validation_data=watched, batch_size=config.vote_batch_size, epochs=config.vote_epochs, verbose=0
    )
    return network, history


def predict(config, images, ballots, methods):
    """Let every method predict every split, and write the tables.

    Returns:
        Dictionary from split to a dictionary from backbone and method to probabilities (images, classes).
    """
    from data.predictions import write_predictions

    predictions = {}
    for split in config.splits:
        predictions[split] = {name: ballots[split][..., k] for k, name in enumerate(config.backbones)}
        for name, method in methods.items():
            predictions[split][name] = method(ballots[split])
            write_predictions(
                config.run_dir / "predictions" / f"{name}_{split}.csv", images[split], predictions[split][name]
            )
    return predictions


def trained(config):
    """From the U-Net and every backbone to the file of its losses by epoch."""
    folders = {"unet": "unet"} | {name: f"backbones/{name}" for name in config.backbones}
    return {name: config.run_dir / folder / "history.csv" for name, folder in folders.items()}


def best_single(config, labels, ballots):
    """The backbone with the largest mean AUC of the two tasks on the validation split; None if it is not defined."""
    import numpy as np

    from evaluation.metrics import TASKS, areas_under_curve

    areas = [areas_under_curve(labels, ballots[..., k]) for k in range(len(config.backbones))]
    if any(area[task] is None for area in areas for task in TASKS):
        return None
    return config.backbones[int(np.argmax([sum(area[task] for task in TASKS) for area in areas]))]


def evaluate(config, labels, predictions, best):
    """Measure and draw the predictions of every split that has labels."""
    import numpy as np

    from data.files import whole_file
    from evaluation.bootstrap import measure
    from evaluation.plots import curves, save, training_curves
    from evaluation.tables import metrics_tables

    results, metrics = config.run_dir / "results", {}
    for split, methods in predictions.items():
        if labels[split] is None:
            print(f"{split}: no labels, so predictions only")
            continue
        save(curves("roc", labels[split], methods), results / f"roc_{split}.png")
        methods = {
            **{name: methods[name] for name in config.backbones},
            **({f"best single ({best})": methods[best]} if best else {}),
            **methods,  # the others; what stands above keeps its place
            # The floor that any method has to beat: the training split's class frequencies, whatever the image.
            "prior": np.tile(labels["training"].mean(axis=0), (len(labels[split]), 1)),
        }
        metrics[split] = measure(labels[split], methods, reference="vote", seed=config.seed)
        metrics[split]["fitted_on"] = fitted_on(config)
    with whole_file(results / "metrics.json") as part:
        part.write_text(json.dumps(metrics, indent=2) + "\n")
    with whole_file(results / "metrics.md") as part:
        part.write_text(metrics_tables(metrics))
    folder, histories = config.run_dir / "vote", trained(config)
    histories |= {"vote": folder / "history.csv"}
    histories |= {"vote_oof": folder / "history_oof.csv"} if config.folds else {}
    save(training_curves(stage.read_histories(histories)), results / "training_curves.png")
    print(f"wrote {folder}, the predictions of the methods, and {results}/metrics.json and metrics.md\n")


if __name__ == "__main__":
    stage.run(main, __doc__)
