"""What `vote.py` writes: the names of its files, the figures of all methods, their operating points, and curves."""

from dataclasses import replace
from itertools import product

from data.official import SPLITS
from evaluation.methods import best_network, compared_methods, measure_split, unseen_methods
from evaluation.operating_points import points_by_method
from evaluation.plots import curves, save, training_curves
from evaluation.subgroups import measure_subgroups, subgroups
from evaluation.tables import IN_SAMPLE, OUT_OF_FOLD, SELECTED, write_metrics
from pipeline.data_sets import data_set, label_files
from pipeline.inputs import needed_splits, read_histories
from pipeline.paths import RunFolder
from utils.files import write_json

SUBGROUP_COLUMNS = ("sex", "age")
MEASURED_BY_SUBGROUP = ("mean", "vote", "stacking", "vote_oof")


def fitted_on(config):
    """Dictionary from each method that is fitted to the source of the predictions that it is fitted on.

    `vote.prediction_files` explains what a source is.

    Stacking and temperature need predictions of images that the networks were not trained on. On their own training
    images the networks are overconfident, and what is fitted there would not hold for other images.
    """
    other = "validation" if config.vote_fit_split == "training" else "training"
    votes = {"vote": config.vote_fit_split, f"vote_on_{other}": other}
    return votes | (dict.fromkeys(("stacking", "temperature", "vote_oof"), "training_oof") if config.folds else {})


def unseen_splits(config):
    """The splits that no backbone was trained on; a ROC curve of the others would be in-sample."""
    return [split for split in config.splits if split != "training"]


def files_of_labels(config):
    """The files of the labels that `vote.py` reads."""
    return [file for split in needed_splits(config) for file in label_files(config, split)]


def network_histories(config):
    """Dictionary from the U-Net and every backbone to the file of its losses by epoch."""
    run = RunFolder(config.run_dir)
    return {"unet": run.unet.history} | {name: run.backbone(name).history for name in config.backbones}


def outputs(config):
    """All files that `vote.py` makes with these settings."""
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
    """All files that `vote.py` makes with these settings or with others."""
    variants = product((0, 2), ("training", "validation"))
    others = (replace(config, folds=folds, vote_fit_split=split, splits=SPLITS) for folds, split in variants)
    return {file for other in others for file in outputs(other)}


def write_results(config, sources, methods, votes_by_seed, histories):
    """Measure and draw every method on every split with labels, and write the results.

    Args:
        config: the settings.
        sources: dictionary from each source to its `Predictions`.
        methods: dictionary from method to its predictions, a dictionary from source to probabilities (images, classes).
        votes_by_seed: dictionary from vote to a list of such predictions, one for each seed.
        histories: dictionary from network to the table of its losses by epoch.
    """
    run, metrics, classes = RunFolder(config.run_dir), {}, data_set(config).classes
    for split in config.splits:
        if not sources[split].has_label.any():
            print(f"{split}: no labels, so predictions only")
            continue
        has_label = sources[split].has_label
        predicted = {name: p[has_label] for name, p in predictions_by_method(config, sources, split, methods).items()}
        by_seed = {vote: [votes[split][has_label] for votes in seeds] for vote, seeds in votes_by_seed.items()}
        metrics[split] = figures(config, sources, split, predicted, by_seed)
        if split in unseen_splits(config):
            unseen = unseen_methods(predicted, fitted_on(config), split)
            save(curves("roc", sources[split].labelled().labels, unseen, classes=classes), run.roc_curves(split))
    write_metrics(metrics, json_file=run.metrics, tables_file=run.metrics_page)
    write_json(run.operating_points, operating_points(config, sources, methods))
    votes = {name: run.vote_history(name) for name in votes_by_seed}
    save(training_curves(histories | read_histories(votes)), run.training_curves)
    print(f"wrote {run.vote}, the predictions of the methods, and {run.results}")


def predictions_by_method(config, sources, split, methods):
    """Dictionary from every backbone and method to its probabilities (images, classes) of a split.

    With --folds, the mean of a backbone's fold networks is a method too.
    """
    single = {name: sources[split].probabilities[..., k] for k, name in enumerate(config.backbones)}
    if f"folds_{split}" in sources:
        folds = sources[f"folds_{split}"].probabilities
        single |= {f"{name}_folds": folds[..., k] for k, name in enumerate(config.backbones)}
    return single | {name: predictions[split] for name, predictions in methods.items() if split in predictions}


def figures(config, sources, split, predicted, by_seed):
    """Measure all methods on the images of a split that have a label.

    Args:
        config: the settings.
        sources: dictionary from each source to its `Predictions`.
        split: the split.
        predicted: dictionary from method to probabilities (images with a label, classes).
        by_seed: dictionary from vote to a list of such probabilities, one for each seed.

    Returns:
        What `measure_split` returns; `notes`; and `subgroups` by sex and age, where the data set has these columns.
    """
    validation, measured = sources["validation"].labelled(), sources[split].labelled()
    classes = data_set(config).classes
    single = {name: validation.probabilities[..., k] for k, name in enumerate(config.backbones)}
    compared = compared_methods(
        predicted,
        networks=config.backbones,
        best=best_network(validation.labels, single, classes),
        frequencies=sources["training"].labelled().labels.mean(axis=0),
    )
    how = {"classes": classes, "seed": config.seed, "groups": data_set(config).groups_of(split, measured.image_ids)}
    result = measure_split(measured.labels, compared, by_seed=by_seed, fitted_on=fitted_on(config), **how)
    result["notes"] = notes(config, split)
    if by_column := column_subgroups(config, split, measured.image_ids):
        shown = {name: predicted[name] for name in MEASURED_BY_SUBGROUP if name in predicted}
        result["subgroups"] = {
            column: measure_subgroups(measured.labels, shown, members, **how) for column, members in by_column.items()
        }
    return result


def operating_points(config, sources, methods):
    """Dictionary from each method to its operating points, chosen on images that it has not seen.

    With --folds, those of the mean are chosen on the out-of-fold predictions. Those of the other methods are chosen on
    the validation split; a method that was fitted there has none. See `evaluation.operating_points`.
    """
    points, classes = {}, data_set(config).classes
    for name in ("mean", *fitted_on(config)):
        out_of_fold = config.folds and name == "mean"
        source = "training_oof" if out_of_fold else "validation"
        points |= points_by_method(
            sources[source].labelled().labels,
            {name: methods[name][source][sources[source].has_label]},
            classes=classes,
            split="training, out of fold" if out_of_fold else source,
            fitted_on=fitted_on(config),
        )
    return points


def column_subgroups(config, split, image_ids):
    """Subgroups by sex and age, where the data set has these columns; see `evaluation.subgroups.subgroups`."""
    columns, _ = data_set(config).columns(split)
    groups = {}
    for column in SUBGROUP_COLUMNS:
        names = [name for name in columns if name == column or name.startswith(f"{column}_")]
        if names:
            name = column if column in names else names[0]
            groups[column] = subgroups(column, columns[name].reindex(image_ids, fill_value=""))
    return {column: members for column, members in groups.items() if set(members) != {"unknown"}}


def notes(config, split):
    """Sentences on the limits of a split's figures."""
    sentences = {"training": [IN_SAMPLE], "validation": [SELECTED]}.get(split, [])
    return sentences + [OUT_OF_FOLD] * bool(config.folds and config.masks == "predicted")
