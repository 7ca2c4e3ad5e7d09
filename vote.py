"""Stage 6 of 6: fit the voting network on the classifiers' predictions, and measure everything.

    python vote.py --preset fine_tuned
    python vote.py --preset fine_tuned --folds 5    # also the methods that are fitted on out-of-fold predictions

Reads   <run-dir>/predictions/<backbone>_<split>.csv
        <run-dir>/predictions/<backbone>_{training_oof,folds_<split>}.csv    with --folds
        the labels in <data-dir>, see data/dataset.py    a split without labels gets predictions and no metrics
        <run-dir>/{unet,backbones/<backbone>}/history.csv    for the training curves

Writes  <run-dir>/vote/vote.keras, history.csv    the published vote, fitted on the training split
        <run-dir>/vote/vote_on_validation.keras   a second vote, fitted on the other split that has labels
        <run-dir>/vote/vote_oof.keras             with --folds: a vote fitted on out-of-fold predictions
        <run-dir>/vote/history_*.csv              the losses of these two
        <run-dir>/vote/{stacking,temperature}.json    with --folds: the logistic regression and the temperature of the
                                                      mean, fitted out of fold
        <run-dir>/vote/config.json                the settings
        <run-dir>/predictions/<method>_<split>.csv    of these methods and of the mean; with --folds also of mean_folds,
                                                      the mean of all fold networks
        <run-dir>/results/metrics.json, metrics.md    of each backbone, the best of them, these methods, and the prior
        <run-dir>/results/operating_points.json    thresholds for 82, 89 and 95 % melanoma sensitivity, for each method
        <run-dir>/results/roc_<split>.png, training_curves.png
"""

from pipeline import command_line

if __name__ == "__main__":
    config = command_line.start(__doc__)

import json
from itertools import product

import numpy as np
import pandas as pd

from data.probabilities import Predictions, ordered_probabilities, write_probabilities
from data.tables import read_table
from evaluation.tables import aligned_table
from models.stacking import fit_stacking, stack
from models.temperature import fit_temperature, scaled_mean
from models.vote import fit_vote
from pipeline import inputs
from pipeline.data_sets import data_set
from pipeline.devices import print_device
from pipeline.fitting import save_network
from pipeline.manifest import Manifest
from pipeline.paths import RunFolder
from pipeline.settings import write_settings
from pipeline.vote_results import (
    all_outputs,
    files_of_labels,
    fitted_on,
    network_histories,
    outputs,
    unseen_splits,
    write_results,
)
from utils.files import write_json, write_table
from utils.progress import numbered


def main(config):
    files, run = prediction_files(config), RunFolder(config.run_dir)
    splits = inputs.needed_splits(config)
    made_from = {
        "predictions": files.values(),
        "labels": files_of_labels(config),
        "histories": network_histories(config).values(),
        "columns": [file for split in splits for file in data_set(config).columns(split)[1]],
    }
    script = "vote.py" + (f" --folds {config.folds}" if config.folds else "")
    manifest = Manifest(
        config, "vote", "vote", script, made_from, outputs(config), obsolete=all_outputs(config), must_match=["folds"]
    )
    if not manifest.up_to_date():
        sources = read_predictions(config, files)
        histories = inputs.read_histories(network_histories(config))
        manifest.begin()
        write_settings(config, run.vote_settings)
        methods, votes_by_seed = fit_and_save(config, sources)
        write_predictions(config, sources, methods)
        write_results(config, sources, methods, votes_by_seed, histories)
        manifest.finish()
    print_metrics(run)


def prediction_files(config):
    """Dictionary from (backbone, source) to the file of these predictions.

    A source is a split. With --folds there are two more kinds: training_oof, the training split predicted by networks
    that were not trained on the image, and folds_<split>, another split by the mean of a backbone's fold networks.

    Raises:
        InputError: if one is missing.
    """
    run, script = RunFolder(config.run_dir), "cls_predict.py"
    sources = inputs.needed_splits(config)
    if len(sources) > len(config.splits):
        script += f" --splits {' '.join(sources)}"
    if config.folds:
        sources += ["training_oof", *(f"folds_{split}" for split in unseen_splits(config))]
        script += f" --folds {config.folds}"
    return {
        (name, source): inputs.require_file(run.predictions(name, source), f"{script} --backbone-name {name}")
        for name in config.backbones
        for source in sources
    }


def read_predictions(config, files):
    """Read the backbones' predictions.

    Args:
        files: as `prediction_files` returns them.

    Returns:
        Dictionary from each source to its `Predictions`. Images without a label are among them.
    """
    sources, images = {}, data_set(config)
    for source in dict.fromkeys(source for _, source in files):
        split = source.removesuffix("_oof").removeprefix("folds_")
        paths = [files[name, source] for name in config.backbones]
        tables = [read_table(path, ["image_id", *images.classes]) for path in paths]
        # The images in use are those of all tables together. A table that lacks one of them is refused below.
        image_ids = sorted(set().union(*(table.index for table in tables)))
        labels = images.labels(split, image_ids, left_out=None, required=split != "test")
        single = [ordered_probabilities(path, table, image_ids) for path, table in zip(paths, tables, strict=True)]
        sources[source] = Predictions(np.array(image_ids, object), labels, np.stack(single, axis=-1))
        print(f"read {len(single)} {source} predictions of {len(image_ids)} images")
    return sources


def fit_and_save(config, sources):
    """Fit the votes and, with --folds, the stacking and the temperature. Save them, and predict with them.

    Args:
        config: the settings.
        sources: dictionary from each source to its `Predictions`.

    Returns:
        Two dictionaries. The first goes from each method to its predictions, a dictionary from source to probabilities
        (images, classes). The second goes from each vote to a list of such predictions, one for each seed.
    """
    run, own = RunFolder(config.run_dir), [source for source in sources if not source.startswith("folds_")]
    probabilities = {source: sources[source].probabilities for source in own}
    means = {source: single.probabilities.mean(axis=-1) for source, single in sources.items()}
    methods, votes_by_seed = {"mean": means}, {}
    print_device()
    for name, source in fitted_on(config).items():
        fit_on = sources[source].labelled()
        if name == "stacking":
            stacking = fit_stacking(fit_on.probabilities, fit_on.labels, config.stacking_c)
            write_json(run.fitted(name), {"backbones": config.backbones, **stacking})
            methods[name] = {source: stack(stacking, values) for source, values in probabilities.items()}
        elif name == "temperature":
            temperature = fit_temperature(fit_on.probabilities.mean(axis=-1), fit_on.labels)
            write_json(run.fitted(name), {"backbones": config.backbones, "temperature": temperature})
            methods[name] = {source: scaled_mean(temperature, values) for source, values in probabilities.items()}
        else:
            monitor_on = sources["training" if source == "validation" else "validation"].labelled()
            network, history, votes_by_seed[name] = fit_vote(
                (fit_on.probabilities, fit_on.labels),
                (monitor_on.probabilities, monitor_on.labels),
                probabilities,
                seeds=numbered(range(config.seed, config.seed + config.vote_seeds), f"{name}: seed"),
                filters=config.vote_filters,
                learning_rate=config.vote_learning_rate,
                batch_size=config.vote_batch_size,
                epochs=config.vote_epochs,
            )
            methods[name] = votes_by_seed[name][0]
            save_network(network, run.vote_network(name))
            losses = {"epoch": np.add(history.epoch, 1)} | history.history
            write_table(run.vote_history(name), pd.DataFrame(losses))
        print(f"fitted {name} on the {source} predictions")
    if config.folds:
        methods["mean_folds"] = {split: means[f"folds_{split}"] for split in unseen_splits(config)}
    return methods, votes_by_seed


def write_predictions(config, sources, methods):
    """Write every method's predictions of every split."""
    run, classes = RunFolder(config.run_dir), data_set(config).classes
    for (name, predictions), split in product(methods.items(), config.splits):
        if split in predictions:
            write_probabilities(run.predictions(name, split), sources[split].image_ids, predictions[split], classes)


def print_metrics(run):
    """Print the metrics of the test split, or of the validation split if the test split has none."""
    metrics = json.loads(run.metrics.read_text(encoding="utf-8"))
    if split := next((split for split in ("test", "validation") if split in metrics), None):
        print(f"{split} split, {metrics[split]['images']} images:\n\n{aligned_table(metrics[split])}")
    print(f"all figures: {run.metrics_page}")


if __name__ == "__main__":
    command_line.run(main, config)
