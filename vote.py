"""Stage 6 of 6: fit the voting network on the classifiers' predictions, and measure everything.

    python vote.py --preset isic2017_256
    python vote.py --preset isic2017_256 --folds 5    # and what is fitted on out-of-fold predictions

Reads   <run-dir>/predictions/<backbone>_<split>.csv
        <run-dir>/predictions/<backbone>_{training_oof,folds_<split>}.csv    with --folds
        the labels in <data-dir>, see data/dataset.py    a split without labels gets predictions and no metrics
        <run-dir>/{unet,backbones/<backbone>}/history.csv    for the training curves

Writes  <run-dir>/vote/vote.keras, history.csv    the published vote, fitted on the training split
        <run-dir>/vote/vote_on_validation.keras   the same network, fitted on the other split that has labels, and
        <run-dir>/vote/vote_oof.keras             with --folds, fitted out of fold; each with its history_*.csv
        <run-dir>/vote/{stacking,temperature}.json    with --folds: the logistic regression and the temperature of the
                                                      mean, fitted out of fold
        <run-dir>/vote/config.json                the settings
        <run-dir>/predictions/<method>_<split>.csv    of these, of the mean, and with --folds of mean_folds, the mean of
                                                      all fold networks
        <run-dir>/results/metrics.json, metrics.md    of each backbone, the best of them, these methods, and the prior
        <run-dir>/results/operating_points.json    thresholds for 82, 89 and 95 % melanoma sensitivity, for each method
        <run-dir>/results/roc_<split>.png, training_curves.png
"""

from pipeline import command_line

if __name__ == "__main__":
    config = command_line.start(__doc__)

import json
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from data.probabilities import Predictions, read_probabilities, write_probabilities
from data.tables import read_table
from evaluation.methods import METHODS
from evaluation.tables import aligned_table
from models.stacking import fit_stacking, stack
from models.temperature import fit_temperature, scaled_mean
from models.vote import fit_vote, predict_vote
from pipeline import inputs
from pipeline.data_sets import data_set, label_files
from pipeline.devices import print_device
from pipeline.fitting import save_network
from pipeline.manifest import Manifest
from pipeline.paths import RunFolder
from pipeline.settings import write_settings
from pipeline.vote_results import fitted_on, network_histories, unseen_splits, write_results
from utils.files import atomic_write
from utils.progress import numbered


def main(config):
    files, run = prediction_files(config), RunFolder(config.run_dir)
    splits = sorted({*config.splits, "training", "validation"})
    made_from = {
        "predictions": files.values(),
        "labels": [file for split in splits for file in label_files(config, split)],
        "histories": network_histories(config).values(),
        "columns": [file for split in splits for file in data_set(config).columns(split)[1]],
    }
    script = "vote.py" + (f" --folds {config.folds}" if config.folds else "")
    manifest = Manifest(
        config, "vote", "vote", script, made_from, outputs(config), obsolete=all_outputs(config), must_match=["folds"]
    )
    if not manifest.up_to_date():
        tables = read_predictions(config, files)
        histories = inputs.read_histories(network_histories(config))
        manifest.begin()
        write_settings(config, run.vote_settings)
        # Images without a label are predicted, but neither fitted on nor measured.
        labelled = {table: predictions.labelled() for table, predictions in tables.items()}
        methods, votes_by_seed = fit(config, labelled)
        write_predictions(config, tables, methods)
        write_results(config, labelled, methods, votes_by_seed, histories)
        manifest.finish()
    metrics = json.loads(run.metrics.read_text(encoding="utf-8"))
    if split := next((split for split in ("test", "validation") if split in metrics), None):
        print(f"{split} split, {metrics[split]['images']} images:\n\n{aligned_table(metrics[split])}")
    print(f"all figures: {run.metrics_page}")


def outputs(config):
    """All files that this stage makes."""
    run = RunFolder(config.run_dir)
    files = [run.vote_settings, run.metrics, run.metrics_page, run.operating_points, run.training_curves]
    for method in fitted_on(config):
        is_network = method.startswith("vote")
        files += [run.vote_network(method), run.vote_history(method)] if is_network else [run.fitted(method)]
    files += [run.predictions(method, split) for method in ("mean", *fitted_on(config)) for split in config.splits]
    for split in unseen_splits(config):
        files += [run.predictions("mean_folds", split)] if config.folds else []
        files += [run.roc_curves(split)] if label_files(config, split) else []
    return files


def all_outputs(config):
    """The files that this stage makes with these settings or with others."""
    variants = product((0, 2), ("training", "validation"))
    return {file for folds, split in variants for file in outputs(replace(config, folds=folds, vote_fit_split=split))}


def prediction_files(config):
    """Dictionary from (backbone, table) to the file of these predictions.

    A table is a split. With --folds there are two more kinds: training_oof, the training split predicted by networks
    that were not trained on the image, and folds_<split>, another split by the mean of a backbone's fold networks.

    Raises:
        InputError: if one is missing.
    """
    run, script = RunFolder(config.run_dir), "cls_predict.py"
    tables = sorted({*config.splits, "training", "validation"})
    if config.folds:
        tables += ["training_oof", *(f"folds_{split}" for split in unseen_splits(config))]
        script += f" --folds {config.folds}"
    return {
        (name, table): inputs.require_file(run.predictions(name, table), f"{script} --backbone-name {name}")
        for name in config.backbones
        for table in tables
    }


def read_predictions(config, files):
    """Read the backbones' predictions.

    Args:
        files: as `prediction_files` returns them.

    Returns:
        Dictionary from each table to its `Predictions`.
    """
    tables, source = {}, data_set(config)
    for table in dict.fromkeys(table for _, table in files):
        split = table.removesuffix("_oof").removeprefix("folds_")
        # The images in use are those of the tables; a table that lacks one of them is refused when it is read.
        rows = [read_table(files[name, table], ["image_id"]) for name in config.backbones]
        image_ids = sorted(set().union(*(of_backbone.index for of_backbone in rows)))
        labels = source.labels(split, image_ids, left_out=None, required=split != "test")
        single = [read_probabilities(files[name, table], image_ids, source.classes) for name in config.backbones]
        tables[table] = Predictions(np.array(image_ids, object), labels, np.stack(single, axis=-1))
        print(f"read {len(single)} {table} predictions of {len(image_ids)} images")
    return tables


def fit(config, tables):
    """Fit the votes and, out of fold, the stacking and the temperature, and write them.

    Args:
        config: the settings.
        tables: dictionary from each table to its `Predictions`, with labels.

    Returns:
        Two dictionaries, from method to one function and from vote to a list of functions, one for each seed. The
        functions turn probabilities (images, classes, backbones) into probabilities (images, classes).
    """
    run, methods, votes_by_seed = RunFolder(config.run_dir), {"mean": partial(np.mean, axis=-1)}, {}
    print_device()
    for name, table in fitted_on(config).items():
        probabilities, labels = tables[table].probabilities, tables[table].labels
        if name == "stacking":
            stacking = fit_stacking(probabilities, labels, config.stacking_c)
            write_fitted(run.fitted(name), {"backbones": config.backbones, **stacking})
            methods[name] = partial(stack, stacking)
        elif name == "temperature":
            temperature = fit_temperature(probabilities.mean(axis=-1), labels)
            write_fitted(run.fitted(name), {"backbones": config.backbones, "temperature": temperature})
            methods[name] = partial(scaled_mean, temperature)
        else:
            other = tables["training" if table == "validation" else "validation"]
            network, history, weights = fit_vote(
                (probabilities, labels),
                monitor_on=(other.probabilities, other.labels),
                seeds=numbered(range(config.seed, config.seed + config.vote_seeds), f"{name}: seed"),
                filters=config.vote_filters,
                learning_rate=config.vote_learning_rate,
                batch_size=config.vote_batch_size,
                epochs=config.vote_epochs,
            )
            votes_by_seed[name] = [partial(predict_vote, network, of_seed) for of_seed in weights]
            methods[name] = votes_by_seed[name][0]
            network.set_weights(weights[0])
            save_network(network, run.vote_network(name))
            with atomic_write(run.vote_history(name)) as part:
                pd.DataFrame({"epoch": np.add(history.epoch, 1)} | history.history).to_csv(part, index=False)
        print(f"fitted {METHODS[name].phrase} on the {table} predictions")
    return methods, votes_by_seed


def write_fitted(path, values):
    """Write what was fitted as JSON."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(values, indent=2) + "\n")


def write_predictions(config, tables, methods):
    """Let every method predict every split, and write the tables."""
    run, classes = RunFolder(config.run_dir), data_set(config).classes
    for split in config.splits:
        predicted = {name: method(tables[split].probabilities) for name, method in methods.items()}
        if f"folds_{split}" in tables:
            predicted["mean_folds"] = tables[f"folds_{split}"].probabilities.mean(axis=-1)
        for name, probabilities in predicted.items():
            write_probabilities(run.predictions(name, split), tables[split].image_ids, probabilities, classes)


if __name__ == "__main__":
    command_line.run(main, config)
