"""Stage 6 of 6: fit the voting network on the classifiers' predictions, and measure everything.

    python vote.py --preset isic2017_256
    python vote.py --preset isic2017_256 --folds 5    # and what is fitted on out-of-fold predictions

Reads   <run-dir>/predictions/<backbone>_<split>.csv
        <run-dir>/predictions/<backbone>_{training_oof,folds_<split>}.csv    with --folds
        <data-dir>/ISIC-2017_*_Part3_GroundTruth.csv    a split without labels gets predictions and no metrics
        <run-dir>/{unet,backbones/<backbone>}/history.csv    for the training curves

Writes  <run-dir>/vote/vote.keras, history.csv    the published vote, fitted on the training split
        <run-dir>/vote/vote_on_validation.keras   the same network, fitted on the other split that has labels, and
        <run-dir>/vote/vote_oof.keras             with --folds, fitted out of fold; each with its history_*.csv
        <run-dir>/vote/stacking.json              with --folds: the logistic regression's weights, fitted out of fold
        <run-dir>/vote/config.json                the settings
        <run-dir>/predictions/<method>_<split>.csv    of these, of the mean, and with --folds of mean_folds, the mean of
                                                      all fold networks
        <run-dir>/results/metrics.json, metrics.md    of each backbone, the best of them, these methods, and the prior
        <run-dir>/results/roc_<split>.png, training_curves.png
"""

from pipeline import command_line

if __name__ == "__main__":
    config = command_line.start(__doc__)

import json
from dataclasses import replace
from functools import partial
from itertools import product

import keras
import numpy as np
import pandas as pd

from data.files import whole_file
from data.isic2017 import label_table, read_labels
from data.probabilities import read_probabilities, write_probabilities
from data.tables import read_table
from evaluation.bootstrap import measure
from evaluation.metrics import TASKS, areas_under_curve
from evaluation.plots import curves, save, training_curves
from evaluation.tables import OUT_OF_FOLD, headlines, metrics_tables
from models.stacking import fit_stacking, stack
from models.vote import vote_network
from pipeline import inputs
from pipeline.devices import tell_device
from pipeline.fitting import save_network
from pipeline.manifest import Manifest
from pipeline.paths import RunFolder
from pipeline.settings import write_settings


def main(config):
    files, run = ballot_files(config), RunFolder(config.run_dir)
    splits = sorted({*config.splits, "training", "validation"})
    made_from = {"predictions": files.values(), "labels": [label_table(config.data_dir, split) for split in splits]}
    made_from["histories"] = trained(config).values()
    script = "vote.py" + (f" --folds {config.folds}" if config.folds else "")
    manifest = Manifest(
        config, "vote", "vote", script, made_from, outputs(config), obsolete=all_outputs(config), must_match=["folds"]
    )
    if not manifest.up_to_date():
        images, labels, ballots = read_ballots(config, files)
        inputs.read_histories(trained(config))
        manifest.begin()
        write_settings(config, run.vote_settings)
        methods, by_seed = fit(config, labels, ballots)
        predictions = combine(config, images, ballots, methods)
        metrics = measure_splits(config, labels, ballots, predictions, by_seed)
        write_metrics(config, metrics)
        draw(config, labels, predictions)
        manifest.finish()
    print(headlines(json.loads(run.metrics.read_text(encoding="utf-8"))))


def outputs(config):
    """All files that this stage makes."""
    run = RunFolder(config.run_dir)
    fitted = fitted_on(config)
    votes = [name for name in fitted if name != "stacking"]
    files = [run.vote_settings, *(run.vote_network(name) for name in votes)]
    files += [run.vote_history(name) for name in votes] + [run.stacking] * ("stacking" in fitted)
    files += [run.metrics, run.metrics_page, run.training_curves]
    files += [run.predictions(method, split) for method in ("mean", *fitted) for split in config.splits]
    if config.folds:
        files += [run.predictions("mean_folds", split) for split in config.splits if split != "training"]
    drawn = [split for split in unseen_splits(config) if label_table(config.data_dir, split).exists()]
    return [*files, *(run.roc_curves(split) for split in drawn)]


def all_outputs(config):
    """The files that this stage makes with these settings or with others."""
    variants = product((0, 2), ("training", "validation"))
    return {file for folds, split in variants for file in outputs(replace(config, folds=folds, vote_fit_split=split))}


def unseen_splits(config):
    """The splits that no backbone was trained on; a ROC curve of the others would be in-sample."""
    return [split for split in config.splits if split != "training"]


def ballot_files(config):
    """From each backbone and table of predictions to its file.

    A table is a split; with --folds also training_oof, the training split by networks that had not seen the image, and
    folds_<split>, another split by the mean of a backbone's fold networks.

    Raises:
        InputError: if one is missing.
    """
    splits = sorted({*config.splits, "training", "validation"})
    tables, script = list(splits), "cls_predict.py"
    if config.folds:
        tables += ["training_oof", *(f"folds_{split}" for split in config.splits if split != "training")]
        script += f" --folds {config.folds}"
    return {
        (name, table): inputs.require_file(
            RunFolder(config.run_dir).predictions(name, table), f"{script} --backbone-name {name}"
        )
        for name in config.backbones
        for table in tables
    }


def read_ballots(config, files):
    """Read what the backbones predicted.

    Args:
        files: as `ballot_files` gives them.

    Returns:
        Three dictionaries, from each table to the image ids, to one-hot labels (images, classes) or None, and to
        probabilities (images, classes, voters), all in the same order.
    """
    images, labels, ballots = {}, {}, {}
    for table in dict.fromkeys(table for _, table in files):
        split = table.removesuffix("_oof").removeprefix("folds_")
        # Which images are in use is what the tables say; one that lacks some is refused when it is read.
        tables = [read_table(files[name, table], ["image_id"]) for name in config.backbones]
        images[table] = sorted(set().union(*(rows.index for rows in tables)))
        labels[table] = read_labels(config.data_dir, split, images[table], left_out=None, required=split != "test")
        single = [read_probabilities(files[name, table], images[table]) for name in config.backbones]
        ballots[table] = np.stack(single, axis=-1)
        print(f"read {len(single)} {table} predictions of {len(images[table])} images")
    return images, labels, ballots


def fit(config, labels, ballots):
    """Fit the votes and, out of fold, the regression, and write them.

    Returns:
        Two dictionaries from method to functions that make probabilities (images, classes) of (images, classes,
        voters): of every method one, and of every vote those of all seeds.
    """
    run, methods, by_seed = RunFolder(config.run_dir), {"mean": partial(np.mean, axis=-1)}, {}
    tell_device()
    for name, fitted in fitted_on(config).items():
        if name == "stacking":
            stacking = fit_stacking(ballots[fitted], labels[fitted], config.stacking_c)
            with whole_file(run.stacking) as part:
                part.write_text(json.dumps({"backbones": config.backbones, **stacking}, indent=2) + "\n")
            methods[name] = partial(stack, stacking)
            print(f"fitted the stacking on the {fitted} predictions")
            continue
        watched = "training" if fitted == "validation" else "validation"
        network, history, weights = fit_vote(config, *((ballots[t], labels[t]) for t in (fitted, watched)))
        by_seed[name] = [partial(predict_with, network, of_seed) for of_seed in weights]
        methods[name] = by_seed[name][0]
        network.set_weights(weights[0])
        print(f"fitted the {name} ({network.count_params()} parameters) on the {fitted} predictions")
        save_network(network, run.vote_network(name))
        with whole_file(run.vote_history(name)) as part:
            pd.DataFrame({"epoch": np.add(history.epoch, 1)} | history.history).to_csv(part, index=False)
    return methods, by_seed


def fitted_on(config):
    """From every method that is fitted to the table of predictions that it is fitted on.

    The stacking needs predictions of images that the networks have not seen: what they say of their own training images
    is so sure that its weights would mean nothing.
    """
    other = "validation" if config.vote_fit_split == "training" else "training"
    votes = {"vote": config.vote_fit_split, f"vote_on_{other}": other}
    return votes | ({"stacking": "training_oof", "vote_oof": "training_oof"} if config.folds else {})


def fit_vote(config, fitted, watched):
    """Fit the voting network on one pair of ballots and labels, its loss watched on another, from several seeds.

    Returns:
        The network; the history of the first seed; the weights of every seed.
    """
    _, classes, voters = fitted[0].shape
    network = vote_network(voters, classes, config.vote_filters)
    network.compile(optimizer=keras.optimizers.Adam(config.vote_learning_rate), loss="categorical_crossentropy")
    network.optimizer.build(network.trainable_variables)
    start = [np.array(keras.ops.convert_to_numpy(variable)) for variable in network.optimizer.variables]
    histories, weights = [], []
    for seed in range(config.seed, config.seed + config.vote_seeds):
        keras.utils.set_random_seed(seed % 2**32)  # the largest that NumPy takes, and then from 0 on
        network.set_weights(vote_network(voters, classes, config.vote_filters).get_weights())
        for variable, value in zip(network.optimizer.variables, start, strict=True):
            variable.assign(value)
        options = {"batch_size": config.vote_batch_size, "epochs": config.vote_epochs, "verbose": 0}
        histories.append(network.fit(*fitted, validation_data=watched, **options))
        weights.append(network.get_weights())
    return network, histories[0], weights


def predict_with(network, weights, ballots):
    """Probabilities (images, classes) of a voting network with some weights."""
    network.set_weights(weights)
    return network.predict(ballots, verbose=0)


def combine(config, images, ballots, methods):
    """Let every method predict every split, and write the tables.

    Returns:
        Dictionary from split to a dictionary from backbone and method to probabilities (images, classes). With --folds
        the mean of a backbone's fold networks counts as a method, and so does the mean of all fold networks.
    """
    predictions = {}
    for split in config.splits:
        predictions[split] = {name: ballots[split][..., k] for k, name in enumerate(config.backbones)}
        combined = {name: method(ballots[split]) for name, method in methods.items()}
        if f"folds_{split}" in ballots:
            folds = ballots[f"folds_{split}"]
            predictions[split] |= {f"{name}_folds": folds[..., k] for k, name in enumerate(config.backbones)}
            combined["mean_folds"] = folds.mean(axis=-1)
        for name, probabilities in combined.items():
            write_probabilities(RunFolder(config.run_dir).predictions(name, split), images[split], probabilities)
        predictions[split] |= combined
    return predictions


def trained(config):
    """From the U-Net and every backbone to the file of its losses by epoch."""
    run = RunFolder(config.run_dir)
    return {"unet": run.unet.history} | {name: run.backbone(name).history for name in config.backbones}


def seeds_spread(labels, ballots, by_seed):
    """How much a vote's figures on a split hang on its seed.

    Returns:
        Dictionary from vote to a dictionary of `seeds`, their number, and from figure to [mean, standard deviation of
        the sample], the latter None for one seed; without a figure that is not defined.
    """
    spread = {}
    for name, of_seeds in by_seed.items():
        found = [vote(ballots) for vote in of_seeds]
        areas = [areas_under_curve(labels, probabilities) for probabilities in found]
        right = [(labels.argmax(axis=1) == probabilities.argmax(axis=1)).mean() for probabilities in found]
        values = {"accuracy": right}
        if all(area[task] is not None for area in areas for task in TASKS):
            values["mean.auc"] = [np.mean([area[task] for task in TASKS]) for area in areas]
        several = len(found) > 1
        figures = {f: [float(np.mean(v)), float(np.std(v, ddof=1)) if several else None] for f, v in values.items()}
        spread[name] = {"seeds": len(found), **figures}
    return spread


def best_single(config, labels, ballots):
    """The backbone with the largest mean AUC of the two tasks on the validation split; None if it is not defined."""
    areas = [areas_under_curve(labels, ballots[..., k]) for k in range(len(config.backbones))]
    if any(area[task] is None for area in areas for task in TASKS):
        return None
    return config.backbones[int(np.argmax([sum(area[task] for task in TASKS) for area in areas]))]


def measure_splits(config, labels, ballots, predictions, by_seed):
    """Figures of every split that has labels.

    Args:
        config: the settings.
        labels: dictionary from split to one-hot labels (images, classes), or None.
        ballots: dictionary from split to probabilities (images, classes, voters).
        predictions: as `combine` gives them.
        by_seed: as `fit` gives it.

    Returns:
        Dictionary from split to what `evaluation.bootstrap.measure` gives, what every method was fitted on, and what
        `seeds_spread` gives.
    """
    best, metrics = best_single(config, labels["validation"], ballots["validation"]), {}
    for split, methods in predictions.items():
        if labels[split] is None:
            print(f"{split}: no labels, so predictions only")
            continue
        methods = {
            **{name: methods[name] for name in config.backbones},
            **({f"best single ({best})": methods[best]} if best else {}),
            **methods,  # the others; what stands above keeps its place
            # The floor that any method has to beat: the training split's class frequencies, whatever the image.
            "prior": np.tile(labels["training"].mean(axis=0), (len(labels[split]), 1)),
        }
        metrics[split] = measure(labels[split], methods, reference="vote", seed=config.seed)
        metrics[split]["fitted_on"] = fitted_on(config)
        metrics[split]["notes"] = notes(config, split)
        metrics[split]["seeds"] = seeds_spread(labels[split], ballots[split], by_seed)
    return metrics


def notes(config, split):
    """Sentences about what the figures of a split rest on."""
    in_sample = ["In-sample: the backbones were trained on these images, so these figures say little about others."]
    crops_in_sample = config.folds and config.masks == "predicted"
    return in_sample * (split == "training") + [OUT_OF_FOLD] * bool(crops_in_sample)


def write_metrics(config, metrics):
    """Write the figures, as JSON and as tables to read."""
    run = RunFolder(config.run_dir)
    with whole_file(run.metrics) as part:
        part.write_text(json.dumps(metrics, indent=2) + "\n")
    with whole_file(run.metrics_page) as part:
        part.write_text(metrics_tables(metrics), encoding="utf-8")
    print(f"wrote {run.vote}, the predictions of the methods, and {run.metrics} and metrics.md\n")


def draw(config, labels, predictions):
    """Draw the losses of all trainings, and ROC curves of unseen splits with labels, without what was fitted on one."""
    run, histories = RunFolder(config.run_dir), trained(config)
    for split in unseen_splits(config):
        if labels[split] is not None:
            methods = predictions[split]
            unseen = {name: values for name, values in methods.items() if fitted_on(config).get(name) != split}
            save(curves("roc", labels[split], unseen), run.roc_curves(split))
    histories |= {name: run.vote_history(name) for name in fitted_on(config) if name != "stacking"}
    save(training_curves(inputs.read_histories(histories)), run.training_curves)


if __name__ == "__main__":
    command_line.run(main, config)
