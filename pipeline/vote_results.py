"""What `vote.py` measures and draws: the figures of all methods, their operating points, and curves."""

import json

from data.classes import positive_class
from evaluation.methods import best_network, compared_methods, measure_split, unseen_methods
from evaluation.operating_points import kept_operating_points
from evaluation.plots import curves, save, training_curves
from evaluation.subgroups import measure_subgroups, subgroups
from evaluation.tables import OUT_OF_FOLD, write_metrics
from pipeline.data_sets import data_set
from pipeline.inputs import read_histories
from pipeline.paths import RunFolder
from utils.files import atomic_write

SUBGROUP_COLUMNS = ("sex", "age")
MEASURED_BY_SUBGROUP = ("mean", "vote", "stacking", "vote_oof")


def fitted_on(config):
    """Dictionary from every method that is fitted to the table of predictions that it is fitted on.

    Stacking and temperature need predictions of images that the networks were not trained on. On their own training
    images the networks are overconfident, and what is fitted there would not hold for other images.
    """
    other = "validation" if config.vote_fit_split == "training" else "training"
    votes = {"vote": config.vote_fit_split, f"vote_on_{other}": other}
    return votes | (dict.fromkeys(("stacking", "temperature", "vote_oof"), "training_oof") if config.folds else {})


def unseen_splits(config):
    """The splits that no backbone was trained on; a ROC curve of the others would be in-sample."""
    return [split for split in config.splits if split != "training"]


def network_histories(config):
    """Dictionary from the U-Net and every backbone to the file of its losses by epoch."""
    run = RunFolder(config.run_dir)
    return {"unet": run.unet.history} | {name: run.backbone(name).history for name in config.backbones}


def write_results(config, tables, methods, votes_by_seed, histories):
    """Measure and draw every method on every split with labels, and write what comes out.

    Args:
        config: the settings.
        tables: dictionary from each table to its `Predictions`, of images with labels.
        methods: dictionary from method to a function that turns probabilities (images, classes, backbones) into
            probabilities (images, classes).
        votes_by_seed: dictionary from vote to a list of such functions, one for each seed.
        histories: dictionary from network to the table of its losses by epoch.
    """
    run, metrics = RunFolder(config.run_dir), {}
    for split in config.splits:
        if tables[split].labels is None:
            print(f"{split}: no labels, so predictions only")
            continue
        predicted = predictions_by_method(config, tables, split, methods)
        metrics[split] = figures(config, tables, split, predicted, votes_by_seed)
        if split in unseen_splits(config):
            unseen = unseen_methods(predicted, fitted_on(config), split)
            save(curves("roc", tables[split].labels, unseen, classes=data_set(config).classes), run.roc_curves(split))
    write_metrics(metrics, json_file=run.metrics, tables_file=run.metrics_page)
    with atomic_write(run.operating_points) as part:
        part.write_text(json.dumps(operating_points(config, tables, methods), indent=2) + "\n")
    votes = {name: run.vote_history(name) for name in votes_by_seed}
    save(training_curves(histories | read_histories(votes)), run.training_curves)
    print(f"wrote {run.vote}, the predictions of the methods, and {run.results}")


def predictions_by_method(config, tables, split, methods):
    """Dictionary from every backbone and method to its probabilities (images, classes) on a split.

    With --folds the mean of a backbone's fold networks counts as a method, and so does the mean of all fold networks.
    """
    probabilities = tables[split].probabilities
    predicted = {name: probabilities[..., k] for k, name in enumerate(config.backbones)}
    combined = {name: method(probabilities) for name, method in methods.items()}
    if f"folds_{split}" in tables:
        folds = tables[f"folds_{split}"].probabilities
        predicted |= {f"{name}_folds": folds[..., k] for k, name in enumerate(config.backbones)}
        combined["mean_folds"] = folds.mean(axis=-1)
    return predicted | combined


def figures(config, tables, split, predicted, votes_by_seed):
    """Figures of all methods on a split, see `measure_split`; also notes, and figures of subgroups by sex and age."""
    validation, measured, classes = tables["validation"], tables[split], data_set(config).classes
    single = {name: validation.probabilities[..., k] for k, name in enumerate(config.backbones)}
    compared = compared_methods(
        predicted,
        networks=config.backbones,
        best=best_network(validation.labels, single, classes),
        frequencies=tables["training"].labels.mean(axis=0),
    )
    by_seed = {name: [vote(measured.probabilities) for vote in votes] for name, votes in votes_by_seed.items()}
    result = measure_split(
        measured.labels, compared, classes=classes, by_seed=by_seed, fitted_on=fitted_on(config), seed=config.seed
    )
    result["notes"] = notes(config, split)
    if groups := column_subgroups(config, split, measured.image_ids):
        shown = {name: predicted[name] for name in MEASURED_BY_SUBGROUP if name in predicted}
        result["subgroups"] = {
            column: measure_subgroups(measured.labels, shown, of_images, seed=config.seed, classes=classes)
            for column, of_images in groups.items()
        }
    return result


def operating_points(config, tables, methods):
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
                tables[table].labels[:, column] == 1,
                method(tables[table].probabilities)[:, column],
                split="training, out of fold" if table == "training_oof" else table,
                class_name=positive,
            )
    return points


def column_subgroups(config, split, image_ids):
    """Subgroups by sex and age, where the data set has these columns; see `evaluation.subgroups.subgroups`."""
    columns, _ = data_set(config).columns(split)
    groups = {}
    for column in SUBGROUP_COLUMNS:
        for name in (name for name in columns if name == column or name.startswith(f"{column}_")):
            groups[column] = subgroups(column, columns[name].reindex(image_ids, fill_value=""))
    return {column: of_images for column, of_images in groups.items() if set(of_images) != {"unknown"}}


def notes(config, split):
    """Sentences on the limits of a split's figures."""
    in_sample = ["In-sample: the backbones were trained on these images, so these figures say little about others."]
    crops_in_sample = config.folds and config.masks == "predicted"
    return in_sample * (split == "training") + [OUT_OF_FOLD] * bool(crops_in_sample)
