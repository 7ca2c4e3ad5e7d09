"""Predict the diagnosis of one's own dermoscopy images with a finished run. This is research software: it is no medical
device, and its output is no diagnosis.

    python predict.py photo.jpg folder_of_photos --run-dir runs/isic2017_256

Segments the lesion, crops the image to it, asks every backbone and combines their answers, as the stages do. The
settings are those of the run folder's config.json, or whatever options give; others than the run was made with are
refused. Of a folder, all .jpg, .jpeg and .png files are taken, but not those of its subfolders. A table that stands in
the output folder already is written over only where all of its images are named again.

Reads   <run-dir>/unet/unet.keras, backbones/<backbone>/model.keras, vote/{vote.keras,stacking.json}
        <run-dir>/config.json, made/*.json    the settings that made the run, and what was made from what

Writes  <output>/predictions.csv             a row an image: probabilities by the method of `decide_by`, mean of the
                                     backbones, decision, box
        <output>/pictures/<name>.png         image with mask and box, crop, and what every network says
        <output>/masks/<name>_segmentation.png
        <output>/NO_DIAGNOSIS.txt            what the columns mean, and what they do not
"""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tyro.conf import Positional

import stage
from config import Config, counts
from errors import InputError
from made import Records

WARNING = "Research software, no medical device: this is no diagnosis. Show a lesion that worries you to a doctor."
EXPLANATION = f"""{WARNING}

Made by predict.py with the networks in {{run_dir}}. The columns of predictions.csv:

melanoma, seborrheic_keratosis, nevus   output of the method that decides here, {{method}}. It orders images from less
                                        to more suspect; it is not the chance of having the disease. (That of a voting
                                        network always lies between 0.155 and 0.576.)
mean_*                                  mean of the backbones' probabilities
decision                                the class of the largest output
top, bottom, left, right                box that was cropped, in pixels of the upright image; bottom and right exclusive
segmented                               whether a lesion was segmented; otherwise the whole frame was classified
name                                    of the files in pictures/ and masks/
"""
CHUNK = 128  # images in memory at once
PREVIEW = 480  # shorter side of an image in its picture, in pixels


@dataclass(frozen=True)
class Settings(Config):
    """The settings of all stages, the images, and where to write."""

    paths: Positional[tuple[Path, ...]] = ()
    """Images, and folders of images."""
    output: Path | None = None
    """Folder for the table and the pictures; without it, own/ of the run folder."""


def main(config):
    from data.own_images import distinct_names, find_images, oddities

    paths = find_images(config.paths)
    records = check_run(config)
    output = config.output or config.run_dir / "own"
    lose_nothing(output / "predictions.csv", paths)

    import pandas as pd
    from tqdm import tqdm

    from data.files import whole_file
    from data.images import check_images
    from data.isic2017 import CLASSES
    from evaluation.plots import opinions

    _, bad = check_images({path: path for path in paths}, config.workers, decoding=True)
    if bad and not config.skip_bad_images:
        raise InputError("; ".join(f"{error}, or pass --skip-bad-images" for error in bad.values()))
    if bad:
        print(f"left out {len(bad)} bad images: {'; '.join(map(str, bad.values()))}")
    paths = [path for path in paths if path not in bad]
    if not paths:
        raise InputError("none of the images can be read: replace the files")
    for what, odd in oddities(paths).items():
        print(f"{len(odd)} of {len(paths)} images, {odd[0]} first, {what}")

    print(WARNING)
    unet, *networks = load_networks(config, records)
    names = dict(zip(paths, distinct_names(paths), strict=True))
    nothing = 0
    with tqdm(total=len(paths), unit="image", disable=None) as bar:
        for start in range(0, len(paths), CHUNK):
            rows = []
            chunk = {path: names[path] for path in paths[start : start + CHUNK]}
            for path, example, methods in diagnose(unet, *networks, chunk, config, output / "masks"):
                with whole_file(output / "pictures" / f"{names[path]}.png", flush=False) as part:
                    opinions(example, methods, WARNING).savefig(part, dpi=100)
                rows.append(table_row(path, names[path], example, methods))
                bar.update()
            add_rows(output / "predictions.csv", rows, first=start == 0)
            nothing += sum(not row["segmented"] for row in rows)
    with whole_file(output / "NO_DIAGNOSIS.txt") as part:
        text = EXPLANATION.format(run_dir=config.run_dir, method=config.decide_by)
        part.write_text(text, encoding="utf-8", errors="surrogateescape")
    if len(paths) <= 20:
        print(pd.DataFrame(rows)[["file", *CLASSES, "decision"]].to_string(index=False, float_format="{:.3f}".format))
    if nothing:
        print(f"no lesion segmented in {nothing} of {len(paths)} images: there the whole frame was classified")
    print(f"wrote predictions.csv, pictures/, masks/ and NO_DIAGNOSIS.txt to {output}")


def lose_nothing(file, paths):
    """Refuse to write over a table that holds other images than those that are to be predicted now.

    Raises:
        InputError: naming one of them.
    """
    import pandas as pd

    if not file.exists():
        return
    try:
        before = pd.read_csv(file, usecols=["file"], encoding_errors="surrogateescape")["file"]
    except ValueError as error:
        raise InputError(f"{file} is no table of predict.py ({error}): choose another --output") from None
    now = {path.resolve() for path in paths}
    others = [name for name in before if Path(name).resolve() not in now]
    if others:
        raise InputError(
            f"{file} holds {others[0]} ({len(others)} such images), which would be lost: name it as well, or choose "
            f"another --output"
        )


def check_run(config):
    """Make sure that a run is finished, that nothing of it is stale, and that it was made with the settings given.

    Returns:
        The `made.Records` of the run, which know how its networks predicted.

    Raises:
        InputError: if it is not so, or nothing tells how the run was made.
    """
    networks = {config.run_dir / "vote" / "vote.keras": "vote.py"}
    networks |= {network_file(config, name): f"training.py --backbone-name {name}" for name in config.backbones}
    if config.masks != "none":
        networks[config.run_dir / "unet" / "unet.keras"] = "seg_train.py"
    records = Records(config)
    names = [name for name in vars(Config()) if counts("crops", name) or counts("masks", name)]
    names = {"backbones", *names} - {"test_time_augmentation"}
    records.check([stage.need(file, script) for file, script in networks.items()], agree=names)
    if not config.config and not any(records.all[name]["kind"] == "crops" for name in records.reached):
        raise InputError(
            f"nothing in {config.run_dir}/made tells with what settings its crops were made: name a file that holds "
            f"them, for example --config {config.run_dir}/vote/config.json"
        )
    return records


def network_file(config, name):
    """File of a backbone's network."""
    return stage.backbone_folder(replace(config, backbone_name=name)) / "model.keras"


def load_networks(config, records):
    """Load the U-Net (None if the run uses no masks), all backbones as one, see `models.vote.ensemble`, and the method.

    Args:
        config: the settings.
        records: as `check_run` gives them.

    Raises:
        InputError: if a network is missing or damaged, or takes other crops than the run's.
    """

    def load(file, script, network, kind, backbone_name=None):
        how = records.made_with("test_time_augmentation", kind, backbone_name)
        return stage.load_predictor(replace(config, test_time_augmentation=how), file, script, network)

    unet = None
    if config.masks != "none":
        unet = load(config.run_dir / "unet" / "unet.keras", "seg_train.py", "unet", "masks")
    networks = []
    for name in config.backbones:
        file, script = network_file(config, name), f"training.py --backbone-name {name}"
        networks.append(load(file, script, name, "predictions", name))
        if (side := networks[-1].input_shape[1]) != config.image_size:
            raise InputError(
                f"{file} takes crops of {side} pixels, the run's have {config.image_size}: "
                f"run `python {script} --overwrite`"
            )
    from models.vote import ensemble

    return unet, ensemble(networks), load_method(config)


def load_method(config):
    """Load the method that decides: a function from probabilities (images, classes, voters) to (images, classes)."""
    import numpy as np

    name, folder = config.decide_by, config.run_dir / "vote"
    if name == "mean":
        return partial(np.mean, axis=-1)
    if name == "stacking":
        from models.stacking import stack

        return partial(stack, json.loads(stage.need(folder / "stacking.json", "vote.py --folds").read_text()))
    return partial(stage.load_network(folder / f"{name}.keras", "vote.py", "vote").predict, verbose=0)


def diagnose(unet, networks, method, names, config, mask_folder):
    """Take some images through the pipeline, and write their masks.

    Args:
        unet, networks, method: as `load_networks` gives them.
        names: dictionary from path to the name of its mask.
        config: the settings, with those of the run.
        mask_folder: folder for the masks.

    Yields:
        For each image its path, what `evaluation.plots.opinions` shows of it, and a dictionary from the name of a
        method, the one that decides first, to its probabilities (3,).
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from data.batches import Batches
    from data.images import image_size, read_image, resize, write_image
    from data.lesion import border_pixels, lesion_box, read_crop, without_border
    from models.unet import segment

    border = border_pixels(config.image_size, config.crop_border)

    def look(path, mask=None):
        height, width = image_size(path)
        box = (0, height, 0, width)
        if mask is not None:
            write_image(mask_folder / f"{names[path]}_segmentation.png", mask)
            box = lesion_box(mask, config.crop_margin_px, config.crop_margin_ratio, config.crop_square)
        image = read_image(path, at_least=PREVIEW)
        scale = min(1, PREVIEW / min(height, width))
        image = resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
        mask = None if mask is None else resize(mask, *image.shape[:2])  # memory must not depend on the image's size
        crop = without_border(read_crop(path, box, config.image_size, border), config.image_size)  # as in the stages
        return path.name, image, scale, mask, box, crop

    if unet is None:
        with ThreadPoolExecutor(config.workers) as pool:
            examples = list(pool.map(look, names))
    else:
        sizes = config.unet_batch_size, config.workers
        examples = list(segment(unet, list(names), look, *sizes, config.mask_sigma, config.mask_threshold))
    crops = np.stack([crop for *_, crop in examples])
    # All networks run at once: so their memory is that of one of them in the stages.
    batch_size = max(1, config.batch_size // len(config.backbones))
    ballots = networks.predict(Batches(crops, batch_size=batch_size), verbose=0)
    for path, example, ballot, decided in zip(names, examples, ballots, method(ballots), strict=True):
        single = dict(zip(config.backbones, ballot.T, strict=True))
        yield path, example, {config.decide_by: decided, "mean": ballot.mean(axis=1), **single}


def table_row(path, name, example, methods):
    """A row of predictions.csv, as a dictionary."""
    from data.isic2017 import CLASSES

    *_, mask, box, _ = example
    decided, mean = (p.astype(float) / p.sum(dtype=float) for p in (next(iter(methods.values())), methods["mean"]))
    return {
        "file": str(path),
        **dict(zip(CLASSES, decided.tolist(), strict=True)),
        **{f"mean_{diagnosis}": p for diagnosis, p in zip(CLASSES, mean.tolist(), strict=True)},
        "decision": CLASSES[decided.argmax()],
        **dict(zip(("top", "bottom", "left", "right"), box, strict=True)),
        "segmented": mask is not None and bool(mask.any()),
        "name": name,
    }


def add_rows(path, rows, first):
    """Add rows to the table of predictions; the first ones take the place of a table that stands there.

    Rows come with their images, so that a run that is stopped leaves what it has done, each time in one write.
    """
    import pandas as pd

    from data.files import whole_file

    text = pd.DataFrame(rows).to_csv(index=False, header=first, lineterminator="\n")
    content = text.encode(errors="surrogateescape")  # a name may hold bytes that are no UTF-8
    if first:
        with whole_file(path) as part:
            part.write_bytes(content)
    else:
        with open(path, "ab", buffering=0) as file:
            file.write(content)


if __name__ == "__main__":
    stage.run(main, __doc__, Settings)
