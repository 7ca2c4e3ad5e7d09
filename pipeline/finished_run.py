"""A finished run, for images of one's own: what predict.py is made of, and what a notebook calls.

The settings are those that made the run:

    from pipeline.finished_run import load_run

    for found in load_run("runs/isic2017_256").diagnose(["photo.jpg"]):
        print(found.path, found.probabilities["mean"], found.box)
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from config import Config
from data.batches import Batches
from data.lesion import ImageView, image_view
from models.stacking import stack
from models.vote import ensemble
from pipeline.crops import crop_rule
from pipeline.inference import check_finite
from pipeline.inputs import require_file
from pipeline.manifest import Manifests
from pipeline.networks import load_network, load_predictor, read_classes
from pipeline.paths import RunFolder
from pipeline.segmentation import segment
from pipeline.settings import affects, check, read_settings
from utils.errors import InputError

CHUNK = 128  # images in memory at once
PREVIEW = 480  # shorter side of an image that is shown, in pixels


@dataclass(frozen=True, kw_only=True)
class Diagnosis(ImageView):
    """What a run finds in one image; the shorter side of `image` has at most `PREVIEW` pixels."""

    path: Path
    probabilities: dict[str, np.ndarray]
    """From method to (classes,), in the order of `Run.classes`: first the one that decides, then the mean, then each
    backbone."""


def load_run(run_dir, **settings):
    """Open a finished run with the settings that made it.

    Args:
        run_dir: its folder.
        settings: fields of `Config` to change, for example `workers` or `decide_by`.

    Returns:
        A `Run`.

    Raises:
        InputError: if the run is not finished, something of it is stale, or a setting contradicts those that made it.
    """
    config = replace(read_settings(RunFolder(run_dir).settings), **settings | {"run_dir": Path(run_dir)})
    check(config)
    return Run(config)


class Run:
    """A finished run; its networks are loaded when the first image is asked about.

    Args:
        config: the settings.

    Raises:
        InputError: if the run is not finished, something of it is stale, it was made with other settings than those
            given, or nothing tells how it was made.
    """

    def __init__(self, config):
        self.config, self.files = config, RunFolder(config.run_dir)
        networks = {self.files.vote_network("vote"): "vote.py"}
        networks |= {
            self.files.backbone(name).network: f"training.py --backbone-name {name}" for name in config.backbones
        }
        if config.masks != "none":
            networks[self.files.unet.network] = "seg_train.py"
        self.manifests = Manifests(config)
        names = [name for name in vars(Config()) if affects(name, "crops") or affects(name, "masks")]
        names = {"backbones", *names} - {"test_time_augmentation"}
        self.manifests.check([require_file(file, script) for file, script in networks.items()], must_match=names)
        if not config.config and not any(
            self.manifests.heads[name]["kind"] == "crops" for name in self.manifests.reached
        ):
            raise InputError(
                f"{config.run_dir} has no record of the settings of its crops: name a file that "
                f"holds them, for example --config {self.files.vote_settings}"
            )

    def load(self, file, script, network, kind, backbone_name=None):
        """Load a network as the stages used it, with test-time augmentation or without."""
        how = self.manifests.made_with("test_time_augmentation", kind, backbone_name)
        classes = None if network == "unet" else self.classes
        return load_predictor(replace(self.config, test_time_augmentation=how), file, script, network, classes)

    @cached_property
    def unet(self):
        """The U-Net; None if the run uses no masks."""
        if self.config.masks == "none":
            return None
        return self.load(self.files.unet.network, "seg_train.py", "unet", "masks")

    @cached_property
    def classes(self):
        """Names of the classes, as the first backbone was trained on."""
        return read_classes(self.files.backbone(self.config.backbones[0]).network)

    @cached_property
    def backbones(self):
        """All backbones as one network; see `models.vote.ensemble`."""
        networks = []
        for name in self.config.backbones:
            file, script = self.files.backbone(name).network, f"training.py --backbone-name {name}"
            networks.append(self.load(file, script, name, "predictions", name))
            if (side := networks[-1].input_shape[1]) != self.config.image_size:
                raise InputError(
                    f"{file} takes crops of {side} pixels, the run's have {self.config.image_size}: "
                    f"run `python {script} --overwrite`"
                )
        return ensemble(networks)

    @cached_property
    def method(self):
        """What decides: a function from probabilities (images, classes, voters) to (images, classes)."""
        name = self.config.decide_by
        if name == "mean":
            return partial(np.mean, axis=-1)
        if name == "stacking":
            return partial(
                stack, json.loads(require_file(self.files.stacking, "vote.py --folds").read_text(encoding="utf-8"))
            )
        return partial(load_network(self.files.vote_network(name), "vote.py", "vote", self.classes).predict, verbose=0)

    def load_networks(self):
        """Load whatever is not yet loaded, so that what is damaged is told before any work.

        Raises:
            InputError: if a network is missing or damaged, or takes other crops than the run's.
        """
        return self.unet, self.backbones, self.method

    def diagnose(self, paths, on_mask=lambda path, mask: None):
        """Take images through the pipeline, `CHUNK` at a time.

        Args:
            paths: image files.
            on_mask: called with each path and its mask (height, width), uint8, 0 or 255, of the file's own size, in a
                worker thread.

        Yields:
            A `Diagnosis` for each image, in the order of `paths`.

        Raises:
            InputError: if a network or an image cannot be read.
        """
        self.load_networks()
        paths = list(map(Path, paths))
        for start in range(0, len(paths), CHUNK):
            yield from self.diagnose_chunk(paths[start : start + CHUNK], on_mask)

    def diagnose_chunk(self, paths, on_mask):
        """`diagnose` for images that may be in memory all at once."""
        config, look = self.config, partial(self.look, on_mask)
        if self.unet is None:
            with ThreadPoolExecutor(config.workers) as pool:
                views = list(pool.map(look, paths))
        else:
            sizes = config.unet_batch_size, config.workers
            views = list(segment(self.unet, paths, look, *sizes, config.mask_sigma, config.mask_threshold))
        crops = np.stack([view.crop for view in views])
        # All networks run at once: so their memory is that of one of them in the stages.
        batch_size = max(1, config.batch_size // len(config.backbones))
        batches = Batches(crops, batch_size=batch_size)
        predictions = check_finite(self.backbones.predict(batches, verbose=0), self.backbones)
        for path, view, single, decided in zip(paths, views, predictions, self.method(predictions), strict=True):
            probabilities = {config.decide_by: decided, "mean": single.mean(axis=1)}
            probabilities |= dict(zip(config.backbones, single.T, strict=True))
            yield Diagnosis(**vars(view), path=path, probabilities=probabilities)

    def look(self, on_mask, path, mask=None):
        """An image as it is shown, a `data.lesion.ImageView`; the crop is cut as in the stages."""
        if mask is not None:
            on_mask(path, mask)
        return image_view(path, mask, crop_rule(self.config), shorter_side=PREVIEW)
