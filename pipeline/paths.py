"""The files of a run folder, each named in one place."""

from pathlib import Path

from config import PRESETS, Config

# The files in a folder of checkpoints (see `pipeline.fitting.Checkpoints`), and its subfolder for the epochs that train
# only the head of a classifier.
CHECKPOINT_EPOCH = "epoch_{}.npz"
CHECKPOINT_HISTORY = "history.csv"
HEAD_CHECKPOINTS = "head"
TRAINED = Path(__file__).parents[1] / "models" / "trained"  # the run that comes with the repository


class Trained:
    """Folder of one trained network.

    Args:
        folder: path of the folder.
        network: name of the network's file in it.
    """

    def __init__(self, folder, network="model.keras"):
        self.folder = folder
        self.network = folder / network
        self.history = folder / "history.csv"
        self.settings = folder / "config.json"
        self.classes = folder / "classes.json"  # names of the classes of a classifier
        self.checkpoints = folder / "checkpoints"  # of an unfinished training
        self.held_out = folder / "held_out.csv"  # of a fold network: the images that it was not trained on


def default_run():
    """Folder of the run that is used if none is named: a finished run of the user, else the one in the repository."""
    own = PRESETS[Config.preset].run_dir
    return own if RunFolder(own).vote_network("vote").exists() else TRAINED


class RunFolder:
    """The files that the stages write.

    Args:
        path: the folder, `Config.run_dir`.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.settings = self.path / "config.json"
        self.manifests = self.path / "manifests"
        # Shared by several stages.
        self.bad_files = self.path / "bad_files.csv"
        self.decoded = self.path / "decoded.json"
        self.fingerprints = self.path / "fingerprints.npz"
        self.folds = self.path / "folds.csv"
        # Stage 1 to 6.
        self.unet = Trained(self.path / "unet", "unet.keras")
        self.vote = self.path / "vote"
        self.vote_settings = self.vote / "config.json"
        self.all_crops = self.path / "crops"
        self.results = self.path / "results"
        self.metrics = self.results / "metrics.json"
        self.metrics_page = self.results / "metrics.md"
        self.operating_points = self.results / "operating_points.json"
        self.segmentation = self.results / "segmentation.json"
        self.training_curves = self.results / "training_curves.png"
        self.report = self.results / "report.html"
        # The other scripts.
        self.own_images = self.path / "own"
        # Only in a packed run; see `pipeline.pack`.
        self.about = self.path / "about.json"
        self.checksums = self.path / "SHA256SUMS"

    def labels(self, split):
        """Labels of a split, copied from the one table of all splits; see `pipeline.data_sets.label_files`."""
        return self.path / "labels" / f"{split}.csv"

    def resized_cache(self, split):
        """Folder of the images and masks of a split at the size of the U-Net."""
        return self.unet.folder / "copies" / split

    def masks(self, split):
        """Folder of the predicted masks of a split."""
        return self.path / "masks" / split

    def mask(self, split, image_id):
        """The predicted mask of an image."""
        return self.masks(split) / f"{image_id}_segmentation.png"

    def masks_settings(self, split):
        """The settings that the masks of a split were made with."""
        return self.masks(split) / "config.json"

    def crops(self, split):
        """Folder of the crops of a split."""
        return self.all_crops / split

    def crop(self, split, image_id):
        """The crop of an image."""
        return self.crops(split) / f"{image_id}.png"

    def crops_settings(self, split):
        """The settings that the crops of a split were made with."""
        return self.crops(split) / "config.json"

    def backbone(self, name, fold=0):
        """Folder of a backbone trained on all training images (fold 0), or on all but one fold."""
        folder = self.path / "backbones" / name
        return Trained(folder / f"fold_{fold}" if fold else folder)

    def predictions(self, method, table):
        """Probabilities that a backbone or vote predicts for a split, or another table of images; see `vote.py`."""
        return self.path / "predictions" / f"{method}_{table}.csv"

    def predictions_settings(self, backbone):
        """The settings that a backbone's predictions were made with."""
        return self.path / "predictions" / f"{backbone}_config.json"

    def vote_network(self, name):
        """A voting network, for example "vote" or "vote_oof"."""
        return self.vote / f"{name}.keras"

    def vote_history(self, name):
        """Losses by epoch of a voting network."""
        return self.vote / f"history{name.removeprefix('vote')}.csv"

    def fitted(self, method):
        """Fitted parameters of a method that is not a network: "stacking" or "temperature"."""
        return self.vote / f"{method}.json"

    def segmentation_table(self, split):
        """Metrics of the predicted mask of each image."""
        return self.results / f"segmentation_{split}.csv"

    def crop_examples(self, split):
        """Picture of some images and their crops."""
        return self.results / f"crops_{split}.png"

    def roc_curves(self, split):
        """Picture of the ROC curves."""
        return self.results / f"roc_{split}.png"

    def table(self, name):
        """A table of `paper_tables.py`."""
        return self.results / f"table_{name}.md"

    def ablation(self, variant):
        """Run folder of a variant of the run."""
        return RunFolder(self.path / "ablations" / variant)

    def tensorboard(self, network=""):
        """Folder of the logs for TensorBoard, of one network or of all."""
        return self.path / "tensorboard" / network


def no_run(run_dir):
    """A sentence about a folder without a finished run. It lists the finished runs beside the folder."""
    folders = sorted(file.parents[1] for file in Path(run_dir).parent.glob("*/results/metrics.json"))
    beside = f"finished runs are {', '.join(map(str, folders))}" if folders else "`make demo` makes one"
    return f"{run_dir} holds no finished run: {beside} (choose with --run-dir, or RUN= of make)"
