"""A finished run that predicts one's own images. predict.py and app.py use it, and notebooks can.

Example:

    from pipeline.finished_run import load_run

    run = load_run()                       # the networks that come with the repository; load_run("runs/x") for others
    diagnosis = run.diagnose("photo.jpg")  # a path, an array (height, width, 3), or a list of them
    diagnosis.decision, diagnosis.suspect, diagnosis.probabilities["mean"], diagnosis.box
    diagnosis.plot()
    run.explain(diagnosis)                 # the same with Grad-CAM
"""

import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

import numpy as np

from config import PRESETS, Config
from data.classes import positive_class
from data.draw_sample import is_sample
from data.images import image_size, write_image
from data.lesion import ImageView, image_view
from data.own_images import file_remarks, picture_remarks
from evaluation.operating_points import SUSPECT_SENSITIVITY, OperatingPoint
from evaluation.overlays import heat_map
from evaluation.plots import draw_probabilities
from models.grad_cam import grad_cam
from models.stacking import stack
from models.temperature import scaled_mean
from models.test_time import over_flips_and_turns
from pipeline.checksums import check_sums
from pipeline.devices import computed_with
from pipeline.inference import QuickStart, check_finite, segment
from pipeline.inputs import crop_rule, read_json, read_operating_points, require_file
from pipeline.networks import load_network, read_classes
from pipeline.paths import TRAINED, RunFolder
from pipeline.settings import affects, as_option_text, check, read_settings
from pipeline.upstream import RunRecords
from utils.errors import InputError
from utils.progress import numbered

BATCH = 8  # images per step of each network
PREVIEW = 480  # shorter side of an image that is shown, in pixels
WARNING = "Research software, no medical device: this is no diagnosis. Show a lesion that worries you to a doctor."
DRAWN = "trained on drawn pictures: it says nothing about skin"


@dataclass(frozen=True, kw_only=True, repr=False)
class Diagnosis(ImageView):
    """The result of a run for one image. The shorter side of `image` has at most `PREVIEW` pixels."""

    path: Path | None
    """The image's file; None for an array."""
    name: str
    """Name of the file, or the array's number."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the probabilities."""
    probabilities: dict[str, np.ndarray]
    """From method to probabilities (classes,): first the method that decides, then the mean, then each backbone."""
    point: OperatingPoint | None
    """The operating point of the method that decides; None if it has none."""
    decide_by_point: bool
    """True if the operating point decides; False if the largest probability does."""
    remarks: tuple[str, ...]
    """What is unusual about the image or the run."""

    @property
    def deciding(self):
        """Probabilities (classes,), float64, by the method that decides; they sum to 1."""
        probabilities = next(iter(self.probabilities.values())).astype(float)
        return probabilities / probabilities.sum()

    @property
    def suspect(self):
        """Whether the class of the operating point reaches its threshold; None without an operating point."""
        if self.point is None:
            return None
        return bool(self.deciding[self.classes.index(self.point.class_name)] >= self.point.threshold)

    @property
    def decision(self):
        """Name of the class that is decided on.

        This is the class with the largest probability. If the operating point decides, it is the class of the operating
        point for a suspect image, and otherwise the most probable of the other classes.
        """
        ranked = [self.classes[k] for k in np.argsort(-self.deciding, kind="stable")]
        if self.decide_by_point:
            return self.point.class_name if self.suspect else next(n for n in ranked if n != self.point.class_name)
        return ranked[0]

    @property
    def footnote(self):
        """Text below a picture, one line each: operating point, remarks and disclaimer."""
        lines = [*self.remarks, WARNING]
        if self.point:
            probability = self.deciding[self.classes.index(self.point.class_name)]
            lines.insert(
                0,
                f"{'SUSPECT' if self.suspect else 'not suspect'}: {self.point.class_name} {probability:.3f}, threshold "
                f"{self.point.threshold:.3f} ({self.point.sensitivity:.0%} sensitivity on {self.point.split})",
            )
        return "\n".join(lines)

    def plot(self, maps=None):
        """Draw the image with mask and box, its crop, and the probabilities of every method.

        Args:
            maps: dictionary from title to further pictures, RGB arrays.

        Returns:
            A `matplotlib.figure.Figure`, which a notebook shows.
        """
        shown = dict(self.probabilities)
        if len(shown) == 2 and np.array_equal(*shown.values()):  # a network, and the mean of one network
            del shown["mean"]
        return draw_probabilities(self.name, self, shown, classes=self.classes, footnote=self.footnote, maps=maps)

    def __repr__(self):
        positive = positive_class(self.classes)
        probability = self.deciding[self.classes.index(positive)]
        suspect = {None: "", True: ", suspect", False: ", not suspect"}[self.suspect]
        remarks = f" ({'; '.join(self.remarks)})" if self.remarks else ""
        return f"<{self.name}: {self.decision}, {positive} {probability:.3f}{suspect}{remarks}>"


def load_run(run_dir=TRAINED, sensitivity=None, **settings):
    """Open a finished run with the settings that made it.

    Args:
        run_dir: its folder; without it, the run that comes with the repository.
        sensitivity: see `Run`.
        settings: fields of `Config` to change, for example `workers` or `decide_by`.

    Returns:
        A `Run`.

    Raises:
        InputError: if the run is not finished, one of its files is outdated, or a setting contradicts those that made
            the run.
    """
    config = replace(read_settings(RunFolder(run_dir).settings), **settings | {"run_dir": Path(run_dir)})
    check(config)
    return Run(config, sensitivity, settings.get("test_time_augmentation"))


class Run:
    """A finished run. Its networks are loaded when the first image is predicted.

    Args:
        config: the settings.
        sensitivity: decide by the operating point of this sensitivity, for example 0.95. None: the largest probability
            decides, and `Diagnosis.suspect` is about the operating point of `SUSPECT_SENSITIVITY`.
        augment: average over eight flips and turns or not. None: as the stages did.

    Attributes:
        classes: names of the classes, in the order of all probabilities.
        packed: whether the run was made by `pipeline.pack`, like the one that comes with the repository.

    Raises:
        InputError: if the run is not finished, one of its files is outdated, it was made with other settings than those
            given, it has no record of its settings, or it has no such operating point.
    """

    def __init__(self, config, sensitivity=None, augment=None):
        self.files = files = RunFolder(config.run_dir)
        self.config = config = replace(config, backbones=voters(config))
        networks = {files.vote_network("vote"): "vote.py"}
        if config.decide_by != "mean":
            file_of = files.fitted if config.decide_by in ("stacking", "temperature") else files.vote_network
            networks[file_of(config.decide_by)] = vote_script(config)
        networks |= {files.backbone(name).network: f"training.py --backbone-name {name}" for name in config.backbones}
        if config.masks != "none":
            networks[files.unet.network] = "seg_train.py"
        networks = [require_file(file, script) for file, script in networks.items()]
        names = [name for name in vars(Config()) if affects(name, "crops") or affects(name, "masks")]
        names = {"backbones", *names} - {"test_time_augmentation"}
        self.manifests = RunRecords(config)
        self.packed = files.checksums.exists()
        if self.packed:
            check_sums(files.checksums)
            refuse_other_settings(config, read_settings(files.settings), names)
        else:
            self.manifests.check(networks, must_match=names)
            if not config.config and not any(
                self.manifests.records[name]["kind"] == "crops" for name in self.manifests.reached
            ):
                raise InputError(
                    f"{config.run_dir} has no record of the settings of its crops: name a file that "
                    f"holds them, for example --config {files.vote_settings}"
                )
        self.about = read_json(files.about, "-m pipeline.pack") if files.about.exists() else {}
        first = config.backbones[0]
        self.classes = read_classes(files.backbone(first).network, f"training.py --backbone-name {first}")
        self.drawn = self.about.get("drawn", config.preset == "sample" or is_sample(config.data_dir))
        self.augment, self.decide_by_point = augment, sensitivity is not None
        self.point = self.operating_point(SUSPECT_SENSITIVITY if sensitivity is None else sensitivity)

    def __repr__(self):
        return f"<run {self.config.run_dir}: {', '.join(self.classes)}; by the {self.described()}>"

    def described(self):
        """The networks of the run in words, for a line or a page."""
        method = {"mean": "mean", "stacking": "stacking", "temperature": "calibrated mean"}
        text = " and ".join(self.config.backbones)
        if len(self.config.backbones) > 1 or self.config.decide_by != "mean":
            text = f"{method.get(self.config.decide_by, 'vote')} of {text}"
        if self.config.masks != "none":
            text += " on crops by a U-Net"
        return f"{text} ({DRAWN})" if self.drawn else text

    def computed_with(self):
        """Backend, device and precision, as text; loads the networks."""
        return computed_with(self.networks[0].plain)

    @cached_property
    def points(self):
        """Dictionary from sensitivity to `OperatingPoint` of the method that decides; empty if the run has none."""
        return read_operating_points(self.files, self.config.decide_by)

    def operating_point(self, sensitivity):
        """The `OperatingPoint` of a sensitivity for the method that decides.

        Returns:
            The operating point; None if the run does not have it and the largest probability decides.

        Raises:
            InputError: if the operating point should decide and the run does not have it.
        """
        if sensitivity in self.points or not self.decide_by_point:
            return self.points.get(sensitivity)
        file, method = self.files.operating_points, self.config.decide_by
        if not self.points:
            raise InputError(
                f"{file} has no operating points of {method}: leave out --sensitivity, take another --decide-by, or "
                f"run `python vote.py`"
            )
        present = ", ".join(map(str, self.points))
        raise InputError(f"sensitivity = {sensitivity}: the operating points of {file} are {present}: take one of them")

    def load(self, file, script, network, kind, backbone_name=None):
        """Load a network as a `QuickStart`."""
        augmented = self.augment
        if augmented is None:
            augmented = self.manifests.made_with("test_time_augmentation", kind, backbone_name)
        plain = load_network(file, script, network, None if network == "unet" else self.classes, quiet=True)
        return QuickStart(over_flips_and_turns(plain) if augmented else plain, BATCH, plain)

    @cached_property
    def unet(self):
        """The U-Net; None if the run uses no masks."""
        if self.config.masks == "none":
            return None
        return self.load(self.files.unet.network, "seg_train.py", "unet", "masks")

    @cached_property
    def networks(self):
        """List of the classifiers, in the order of `backbones`."""
        networks = []
        for name in numbered(self.config.backbones, "loading network"):
            file, script = self.files.backbone(name).network, f"training.py --backbone-name {name}"
            networks.append(self.load(file, script, name, "predictions", name))
            if (side := networks[-1].input_shape[1]) != self.config.image_size:
                raise InputError(
                    f"{file} takes crops of {side} pixels, the run's have {self.config.image_size}: "
                    f"run `python {script} --overwrite`"
                )
        return networks

    @cached_property
    def method(self):
        """The method that decides: a function from probabilities (images, classes, voters) to (images, classes)."""
        name = self.config.decide_by
        if name == "mean":
            return partial(np.mean, axis=-1)
        if name in ("stacking", "temperature"):
            fitted = read_json(self.files.fitted(name), vote_script(self.config))
            return partial(stack, fitted) if name == "stacking" else partial(scaled_mean, fitted["temperature"])
        network = load_network(
            self.files.vote_network(name), vote_script(self.config), "vote", self.classes, quiet=True
        )
        return network.predict_on_batch

    def load_networks(self):
        """Load the networks that are not yet loaded, so that a damaged network is an error before any work.

        Raises:
            InputError: if a network is missing or damaged, or takes crops of another size.
        """
        return self.unet, self.networks, self.method

    def diagnose(self, images):
        """Predict images.

        Args:
            images: the path of an image file, an array (height, width, 3) of RGB values from 0 to 255, or a list of
                these. For thousands of images see `diagnose_each`.

        Returns:
            A `Diagnosis`; for a list of images, a list of them in its order.

        Raises:
            InputError: if a network or an image cannot be read.
        """
        if isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim < 4):
            return self.diagnose([images])[0]
        if not isinstance(images, Iterable):
            raise InputError(f"{type(images).__name__} is no image: give a path, an array, or a list of them")
        images = list(images)
        with tempfile.TemporaryDirectory() as folder:
            arrays = {i: image for i, image in enumerate(images) if not isinstance(image, str | Path)}
            paths = [Path(folder) / f"{i}.png" if i in arrays else Path(image) for i, image in enumerate(images)]
            for index, array in arrays.items():
                write_image(paths[index], as_rgb(array))
            diagnoses = list(self.diagnose_each(paths))
        for index in arrays:
            diagnoses[index] = replace(diagnoses[index], path=None, name=f"image {index + 1}")
        return diagnoses

    def diagnose_each(self, paths, on_mask=lambda path, mask: None):
        """Predict image files, in constant memory.

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
        config, look, paths = self.config, partial(self.look, on_mask), list(map(Path, paths))
        with ThreadPoolExecutor(config.workers) as pool:
            if self.unet is None:
                batches = (paths[i : i + BATCH] for i in range(0, len(paths), BATCH))
                views = (view for batch in batches for view in pool.map(look, batch))
            else:
                views = segment(self.unet, paths, look, BATCH, config.workers, config.mask_sigma, config.mask_threshold)
            pairs = zip(paths, views, strict=True)
            while batch := list(islice(pairs, BATCH)):
                yield from self.classified(batch)

    def classified(self, batch):
        """Classify a batch of pairs of path and (`ImageView`, remarks), and yield a `Diagnosis` of each."""
        crops = np.stack([view.crop for _, (view, _) in batch])
        by_network = [check_finite(network.predict(crops), network) for network in self.networks]
        predictions = np.stack(by_network, axis=-1)
        for (path, (view, remarks)), single, decided in zip(batch, predictions, self.method(predictions), strict=True):
            probabilities = {self.config.decide_by: decided, "mean": single.mean(axis=1)}
            probabilities |= dict(zip(self.config.backbones, single.T, strict=True))
            yield Diagnosis(
                **vars(view),
                path=path,
                name=path.name,
                classes=self.classes,
                probabilities=probabilities,
                point=self.point,
                decide_by_point=self.decide_by_point,
                remarks=(*remarks, *[DRAWN] * self.drawn),
            )

    def look(self, on_mask, path, mask=None):
        """Read and crop an image as the stages do: a `data.lesion.ImageView` to show, and remarks."""
        if mask is not None:
            on_mask(path, mask)
        view = image_view(path, mask, crop_rule(self.config), shorter_side=PREVIEW)
        return view, [*file_remarks(path), *picture_remarks(view.image, image_size(path))]

    def maps(self, diagnosis, class_name=None):
        """Map where in the crop every network sees a class; see `models.grad_cam`.

        Args:
            diagnosis: a `Diagnosis` by this run.
            class_name: the class; None for the class that is decided on.

        Returns:
            Dictionary from backbone to the crop with the map laid over it, RGB array (side, side, 3), uint8.
        """
        classes = [self.classes.index(class_name or diagnosis.decision)]
        maps = {}
        for name, network in zip(self.config.backbones, self.networks, strict=True):
            # Grad-CAM needs the layers of the network itself, without test-time augmentation.
            maps[name] = heat_map(diagnosis.crop, grad_cam(network.plain, diagnosis.crop[None], classes)[0])
        return maps

    def explain(self, diagnosis, class_name=None):
        """Draw a `Diagnosis` with Grad-CAM of every network, a `matplotlib.figure.Figure`; see `maps`."""
        shown = (class_name or diagnosis.decision).replace("_", " ")
        maps = self.maps(diagnosis, class_name)
        return diagnosis.plot({f"{name}: where it sees {shown}": heat for name, heat in maps.items()})


def voters(config):
    """The backbones that vote: those of the last vote, unless the settings name other backbones than the run.

    `Run` refuses other backbones, as no vote over them was fitted.
    """
    run = RunFolder(config.run_dir)
    if not run.vote_settings.exists():
        return config.backbones
    voted = read_settings(run.vote_settings).backbones
    of_run = read_settings(run.settings).backbones if run.settings.exists() else voted
    return voted if config.backbones in (of_run, PRESETS[config.preset].backbones) else config.backbones


def vote_script(config):
    """The command that fits the method that decides."""
    return f"vote.py --folds {config.folds}" if config.folds else "vote.py"


def refuse_other_settings(config, saved, names):
    """Refuse settings that a packed run was not made with.

    Raises:
        InputError: naming the first of them.
    """
    for name in sorted(names):
        value, made_with = getattr(config, name), getattr(saved, name)
        if value != made_with:
            raise InputError(
                f"{name} = {as_option_text(value)}, but {config.run_dir} was made with {as_option_text(made_with)}: "
                f"leave it out"
            )


def as_rgb(image):
    """An image in memory as an RGB array (height, width, 3), uint8.

    Args:
        image: array (height, width), (height, width, 3) or (height, width, 4), whose fourth channel is dropped. Its
            values are whole numbers from 0 to 255, or floats from 0 to 1. It may also be an object that NumPy turns
            into such an array, for example a Pillow image.

    Raises:
        InputError: if it is something else.
    """
    image = np.asarray(image)
    if image.dtype.kind == "f" and image.size and image.min() >= 0 and image.max() <= 1:
        image = np.round(255 * image)
    numbers = image.dtype.kind in "uif" and image.size and np.isfinite(image).all()
    channels = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))
    if not numbers or not channels or image.min() < 0 or image.max() > 255:
        raise InputError(
            f"an array {image.shape} of {image.dtype} is no image: give (height, width, 3), RGB from 0 to 255 or 0 to 1"
        )
    image = image.astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image[..., :3])
