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
        <run-dir>/vote/stacking.json              with --folds: the logistic regression's weights, fitted out of fold
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

import keras
import numpy as np
import pandas as pd

from data.classes import positive_class
from data.probabilities import read_probabilities, write_probabilities
from data.tables import read_table
from evaluation.methods import best_network, compared_methods, measure_split, unseen_methods
from evaluation.operating_points import kept_operating_points
from evaluation.plots import curves, save, training_curves
from evaluation.subgroups import measure_subgroups, subgroups
from evaluation.tables import OUT_OF_FOLD, aligned_table, write_metrics
from models.stacking import fit_stacking, stack
from models.vote import vote_network
from pipeline import inputs
from pipeline.data_sets import data_set, label_files
from pipeline.devices import print_device
from pipeline.fitting import save_network
from pipeline.manifest import Manifest
from pipeline.paths import RunFolder
from pipeline.settings import write_settings
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
        images, labels, predictions = read_predictions(config, files)
        inputs.read_histories(network_histories(config))
        manifest.begin()
        write_settings(config, run.vote_settings)
        # Images without a label are predicted, but neither fitted on nor measured.
        rows = {t: slice(None) if truth is None else truth.any(axis=1) for t, truth in labels.items()}
        labels = {table: None if truth is None else truth[rows[table]] for table, truth in labels.items()}
        labelled = {table: probabilities[rows[table]] for table, probabilities in predictions.items()}
        methods, vote_of_seeds = fit(config, labels, labelled)
        combined = combine(config, images, predictions, methods)
        combined = {split: {m: p[rows[split]] for m, p in of_methods.items()} for split, of_methods in combined.items()}
        images = {table: np.array(ids, object)[rows[table]] for table, ids in images.items()}
        measure(config, images, labels, labelled, combined, vote_of_seeds)
        with atomic_write(run.operating_points) as part:
            part.write_text(json.dumps(operating_points(config, labels, labelled, methods), indent=2) + "\n")
        draw(config, labels, combined)
        manifest.finish()
    metrics = json.loads(run.metrics.read_text(encoding="utf-8"))
    if split := next((split for split in ("test", "validation") if split in metrics), None):
        print(f"{split} split, {metrics[split]['images']} images:\n\n{aligned_table(metrics[split])}")
    print(f"all figures: {run.metrics_page}")


def outputs(config):
    """All files that this stage makes."""
    run = RunFolder(config.run_dir)
    fitted = fitted_on(config)
    votes = [name for name in fitted if name != "stacking"]
    files = [run.vote_settings, *(run.vote_network(name) for name in votes)]
    files += [run.vote_history(name) for name in votes] + [run.stacking] * ("stacking" in fitted)
    files += [run.metrics, run.metrics_page, run.operating_points, run.training_curves]
    files += [run.predictions(method, split) for method in ("mean", *fitted) for split in config.splits]
    if config.folds:
        files += [run.predictions("mean_folds", split) for split in config.splits if split != "training"]
    drawn = [split for split in unseen_splits(config) if label_files(config, split)]
    return [*files, *(run.roc_curves(split) for split in drawn)]


def all_outputs(config):
    """The files that this stage makes with these settings or with others."""
    variants = product((0, 2), ("training", "validation"))
    return {file for folds, split in variants for file in outputs(replace(config, folds=folds, vote_fit_split=split))}


def unseen_splits(config):
    """The splits that no backbone was trained on; a ROC curve of the others would be in-sample."""
    return [split for split in config.splits if split != "training"]


def prediction_files(config):
    """Dictionary from (backbone, table) to the file of these predictions.

    A table is a split. With --folds there are two more kinds: training_oof, the training split predicted by networks
    that were not trained on the image, and folds_<split>, another split by the mean of a backbone's fold networks.

    Raises:
        InputError: if one is missing.
    """
    tables, script = sorted({*config.splits, "training", "validation"}), "cls_predict.py"
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


def network_histories(config):
    """Dictionary from the U-Net and every backbone to the file of its losses by epoch."""
    run = RunFolder(config.run_dir)
    return {"unet": run.unet.history} | {name: run.backbone(name).history for name in config.backbones}


def fitted_on(config):
    """Dictionary from every method that is fitted to the table of predictions that it is fitted on.

    The stacking needs predictions of images that the networks were not trained on. On their own training images the
    networks are overconfident, and weights fitted there would not hold for other images.
    """
    other = "validation" if config.vote_fit_split == "training" else "training"
    votes = {"vote": config.vote_fit_split, f"vote_on_{other}": other}
    return votes | ({"stacking": "training_oof", "vote_oof": "training_oof"} if config.folds else {})


def read_predictions(config, files):
    """Read the backbones' predictions.

    Args:
        files: as `prediction_files` returns them.

    Returns:
        Three dictionaries, from each table to the image ids, to one-hot labels (images, classes) or None, and to
        probabilities (images, classes, backbones), all in the same order.
    """

    images, labels, predictions, source = {}, {}, {}, data_set(config)
    for table in dict.fromkeys(table for _, table in files):
        split = table.removesuffix("_oof").removeprefix("folds_")
        # The images in use are those of the tables; a table that lacks one of them is refused when it is read.
        tables = [read_table(files[name, table], ["image_id"]) for name in config.backbones]
        images[table] = sorted(set().union(*(rows.index for rows in tables)))
        labels[table] = source.labels(split, images[table], left_out=None, required=split != "test")
        single = [read_probabilities(files[name, table], images[table], source.classes) for name in config.backbones]
        predictions[table] = np.stack(single, axis=-1)
        print(f"read {len(single)} {table} predictions of {len(images[table])} images")
    return images, labels, predictions


def fit(config, labels, predictions):
    """Fit the votes and, out of fold, the regression, and write them.

    Returns:
        Two dictionaries, from method to one function and from vote to a list of functions, one for each seed. The
        functions turn probabilities (images, classes, backbones) into probabilities (images, classes).
    """

    run, methods, vote_of_seeds = RunFolder(config.run_dir), {"mean": partial(np.mean, axis=-1)}, {}
    print_device()
    for name, table in fitted_on(config).items():
        if name == "stacking":
            stacking = fit_stacking(predictions[table], labels[table], config.stacking_c)
            with atomic_write(run.stacking) as part:
                part.write_text(json.dumps({"backbones": config.backbones, **stacking}, indent=2) + "\n")
            methods[name] = partial(stack, stacking)
            print(f"fitted the stacking on the {table} predictions")
            continue
        other = "training" if table == "validation" else "validation"
        network, history, weights = fit_vote(
            config, name, fit_on=(predictions[table], labels[table]), monitor_on=(predictions[other], labels[other])
        )
        vote_of_seeds[name] = [partial(predict_with, network, of_seed) for of_seed in weights]
        methods[name] = vote_of_seeds[name][0]
        network.set_weights(weights[0])
        print(f"fitted the {name} ({network.count_params()} parameters) on the {table} predictions")
        save_network(network, run.vote_network(name))
        with atomic_write(run.vote_history(name)) as part:
            pd.DataFrame({"epoch": np.add(history.epoch, 1)} | history.history).to_csv(part, index=False)
    return methods, vote_of_seeds


def fit_vote(config, name, fit_on, monitor_on):
    """Fit the voting network from several seeds.

    Args:
        config: the settings.
        name: name of the vote, for the progress.
        fit_on: pair of probabilities (images, classes, backbones) and one-hot labels (images, classes).
        monitor_on: another such pair, for the validation loss by epoch.

    Returns:
        The network; the history of the first seed; the weights of every seed.
    """
    _, classes, voters = fit_on[0].shape
    network = vote_network(voters, classes, config.vote_filters)
    network.compile(optimizer=keras.optimizers.Adam(config.vote_learning_rate), loss="categorical_crossentropy")
    network.optimizer.build(network.trainable_variables)
    start = [np.array(keras.ops.convert_to_numpy(variable)) for variable in network.optimizer.variables]
    histories, weights = [], []
    for seed in numbered(range(config.seed, config.seed + config.vote_seeds), f"{name}: seed"):
        keras.utils.set_random_seed(seed % 2**32)  # the largest that NumPy takes, and then from 0 on
        network.set_weights(vote_network(voters, classes, config.vote_filters).get_weights())
        for variable, value in zip(network.optimizer.variables, start, strict=True):
            variable.assign(value)
        options = {"batch_size": config.vote_batch_size, "epochs": config.vote_epochs, "verbose": 0}
        histories.append(network.fit(*fit_on, validation_data=monitor_on, **options))
        weights.append(network.get_weights())
    return network, histories[0], weights


def predict_with(network, weights, predictions):
    """Probabilities (images, classes) of a voting network with some weights."""
    network.set_weights(weights)
    return network.predict(predictions, verbose=0)


def combine(config, images, predictions, methods):
    """Let every method predict every split, and write the tables.

    Returns:
        Dictionary from split to a dictionary from backbone and method to probabilities (images, classes). With --folds
        the mean of a backbone's fold networks counts as a method, and so does the mean of all fold networks.
    """

    by_split, run, classes = {}, RunFolder(config.run_dir), data_set(config).classes
    for split in config.splits:
        by_split[split] = {name: predictions[split][..., k] for k, name in enumerate(config.backbones)}
        combined = {name: method(predictions[split]) for name, method in methods.items()}
        if f"folds_{split}" in predictions:
            folds = predictions[f"folds_{split}"]
            by_split[split] |= {f"{name}_folds": folds[..., k] for k, name in enumerate(config.backbones)}
            combined["mean_folds"] = folds.mean(axis=-1)
        for name, probabilities in combined.items():
            write_probabilities(run.predictions(name, split), images[split], probabilities, classes)
        by_split[split] |= combined
    return by_split


def measure(config, images, labels, predictions, combined, vote_of_seeds):
    """Measure every method on every split with labels, and write the figures as JSON and as tables to read."""

    validation = {name: predictions["validation"][..., k] for k, name in enumerate(config.backbones)}
    classes, frequencies = data_set(config).classes, labels["training"].mean(axis=0)
    best = best_network(labels["validation"], validation, classes)
    run, metrics = RunFolder(config.run_dir), {}
    for split, methods in combined.items():
        if labels[split] is None:
            print(f"{split}: no labels, so predictions only")
            continue
        metrics[split] = measure_split(
            labels[split],
            compared_methods(methods, networks=config.backbones, best=best, frequencies=frequencies),
            classes=classes,
            by_seed={name: [vote(predictions[split]) for vote in votes] for name, votes in vote_of_seeds.items()},
            fitted_on=fitted_on(config),
            seed=config.seed,
        )
        metrics[split]["notes"] = notes(config, split)
        groups = column_subgroups(config, split, images[split])
        if groups:
            shown = {name: methods[name] for name in ("mean", "vote", "stacking", "vote_oof") if name in methods}
            metrics[split]["subgroups"] = {
                column: measure_subgroups(labels[split], shown, of, seed=config.seed, classes=classes)
                for column, of in groups.items()
            }
    write_metrics(metrics, json_file=run.metrics, tables_file=run.metrics_page)
    print(f"wrote {run.vote}, the predictions of the methods, and {run.results}")


def operating_points(config, labels, predictions, methods):
    """Dictionary from each method to its operating points, chosen on images that it has not seen.

    With --folds, the mean's are chosen on the out-of-fold predictions. The others' are chosen on the validation split,
    and a method that was fitted there has none. See `evaluation.operating_points.kept_operating_points`.
    """
    points, classes = {}, data_set(config).classes
    positive = positive_class(classes)
    column = classes.index(positive)
    for name, method in methods.items():
        table = "training_oof" if config.folds and name == "mean" else "validation"
        if fitted_on(config).get(name) != table:
            points[name] = kept_operating_points(
                labels[table][:, column] == 1,
                method(predictions[table])[:, column],
                split="training, out of fold" if table == "training_oof" else table,
                class_name=positive,
            )
    return points


def column_subgroups(config, split, image_ids):
    """Subgroups by sex and age, where the data set has these columns; see `evaluation.subgroups.subgroups`."""
    columns, _ = data_set(config).columns(split)
    groups = {}
    for column in ("sex", "age"):
        for name in (name for name in columns if name == column or name.startswith(f"{column}_")):
            groups[column] = subgroups(column, columns[name].reindex(image_ids, fill_value=""))
    return {column: of for column, of in groups.items() if set(of) != {"unknown"}}


def notes(config, split):
    """Sentences on the limits of a split's figures."""
    in_sample = ["In-sample: the backbones were trained on these images, so these figures say little about others."]
    crops_in_sample = config.folds and config.masks == "predicted"
    return in_sample * (split == "training") + [OUT_OF_FOLD] * bool(crops_in_sample)


def draw(config, labels, combined):
    """Draw the losses of all trainings, and ROC curves of unseen splits with labels, without what was fitted on one."""
    run, histories = RunFolder(config.run_dir), network_histories(config)
    for split in unseen_splits(config):
        if labels[split] is not None:
            unseen = unseen_methods(combined[split], fitted_on(config), split)
            save(curves("roc", labels[split], unseen, classes=data_set(config).classes), run.roc_curves(split))
    histories |= {name: run.vote_history(name) for name in fitted_on(config) if name != "stacking"}
    save(training_curves(inputs.read_histories(histories)), run.training_curves)


if __name__ == "__main__":
    command_line.run(main, config)
