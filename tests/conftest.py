"""What the tests share: a tiny sample, and a way to run the real scripts."""

import ctypes
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in the scripts
REPOSITORY = Path(__file__).parent.parent
# The smallest training that runs every line: seconds a stage.
IMAGE_SIZE = 72
BACKBONES = ("resnet50", "xception")
BUDGET = [
    *("--preset", "sample", "--image-size", IMAGE_SIZE, "--epochs", 1, "--batch-size", 8, "--vote-epochs", 3),
    *("--vote-seeds", 2, "--unet-image-size", 32, "--unet-blocks", 3, "--unet-filters", 4, "--unet-epochs", 3),
    *("--unet-learning-rate", 0.02, "--backbones", *BACKBONES),
    *("--mixed-precision", "float32"),  # the same on every processor
    *("--checkpoint-seconds", 0),
]


# The longest first, and beside the one that makes the finished run, for which others would wait, one that needs none.
FIRST = (
    *("test_stages", "test_backbones", "test_devices", "test_snakefile", "test_tour", "test_predict"),
    *("test_interruption", "test_pack", "test_unet", "test_report", "test_paper_tables", "test_app"),
    *("test_folds", "test_any_classes", "test_recipe"),
)


def pytest_collection_modifyitems(items):
    """Put the tests in an order that keeps all of pytest-xdist's workers busy to the end."""
    place = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(FIRST)))


@pytest.fixture(autouse=True)
def as_before():
    """Set back what a test has changed: the precision, and the options that sentences of errors name."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")
    if "utils.errors" in sys.modules:
        sys.modules["utils.errors"].options_for_others.clear()


def made_once(tmp_path_factory, name, make):
    """Folder that `make(folder)` fills, once for all of pytest-xdist's workers."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tmp_path_factory.mktemp(name)
        make(folder)
        return folder
    folder = tmp_path_factory.getbasetemp().parent / name  # beside the workers' own folders
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            part = tmp_path_factory.mktemp(name)
            make(part)
            part.rename(folder)
    return folder


@pytest.fixture(scope="session")
def run_script(tmp_path_factory):
    """Function that runs a script of the repository as a user would: run_script("resize.py", "--seed", 1).

    With `eager`, the default, TensorFlow runs each operation by itself: to trace and optimise a graph is half of a
    training as small as these. The `finished` run, and whatever starts processes of its own, have their graphs. With
    `tiny`, a classifier that is trained is a `tiny_classifier`.
    """

    def run(*command, eager=True, tiny=False, **environment):
        command = list(map(str, command))
        script = REPOSITORY / command[0]  # that of a copied repository has a process of its own
        if script.suffix == ".py" and script.is_relative_to(REPOSITORY) and not environment:
            return run_in_fork(command, tmp_path_factory.mktemp("said"), eager, tiny)
        assert not tiny
        return subprocess.run(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


# Importing TensorFlow takes three seconds, most of what a small script does: these fork from a process that did so.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *("keras", "pandas", "cv2", "PIL.Image", "scipy.stats", "tyro", "sklearn.metrics", "sklearn.linear_model"),
        *("sklearn.model_selection", "matplotlib.figure", "matplotlib.backends.backend_agg"),
    ]
)


def tiny_classifier(backbone_name, *, image_size, classes, **_):
    """Stands in for `models.backbones.classifier`: its head on one convolution."""
    from keras import Input, Model, initializers, layers

    crops = Input((image_size, image_size, 3), name="crop")
    # Weights of this size, so that the probabilities depend on the image before any training.
    convolution = {"kernel_initializer": initializers.RandomNormal(stddev=0.2), "activation": "relu", "name": "conv"}
    x = layers.Conv2D(8, 5, strides=4, **convolution)(layers.Rescaling(1 / 127.5, offset=-1)(crops))
    x = layers.Dense(8, activation="relu", name="hidden")(layers.GlobalAveragePooling2D(name="pool")(x))
    last = {"kernel_initializer": initializers.RandomNormal(stddev=1.0), "activation": "softmax", "dtype": "float32"}
    outputs = layers.Dense(classes, **last, name="diagnosis")(x)
    return Model(crops, outputs, name=backbone_name)


def run_in_fork(command, folder, eager, tiny):
    """Run a script, and its arguments, as `python` does; gives what `subprocess.run` gives."""
    said = folder / "stdout", folder / "stderr"
    process = FORKS.Process(target=run_script_here, args=(command, dict(os.environ), *said, eager, tiny))
    process.start()
    process.join(timeout=300)
    if process.exitcode is None:
        process.kill()
        raise subprocess.TimeoutExpired(command, 300)
    return subprocess.CompletedProcess(command, process.exitcode, *(path.read_text() for path in said))


def run_script_here(command, environment, stdout, stderr, eager, tiny):
    """Be the script."""
    os.environ.clear()
    os.environ.update(environment)
    if eager and "tensorflow" in sys.modules:
        sys.modules["tensorflow"].config.run_functions_eagerly(True)
    for stream, path in ((sys.stdout, stdout), (sys.stderr, stderr)):
        with open(path, "wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(REPOSITORY)
    os.fsync = lambda handle: None  # no power fails here
    if tiny:
        import models.backbones

        models.backbones.classifier = tiny_classifier
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")


@pytest.fixture
def as_nobody():
    """Context in which the rights to files count for this thread, even if root runs the tests (Linux)."""
    libc = ctypes.CDLL(None)
    version_and_thread = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable capabilities, twice 32 of each
    assert libc.capget(version_and_thread, before) == 0

    @contextmanager
    def nobody():
        without = (ctypes.c_uint32 * 6)(*before)
        without[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
        assert libc.capset(version_and_thread, without) == 0
        try:
            yield
        finally:
            assert libc.capset(version_and_thread, before) == 0

    return nobody


@pytest.fixture(scope="session")
def tiny_sample(tmp_path_factory):
    """Folder of a sample of 16 training, 8 validation and 8 test images; read only."""
    from data.draw_sample import write_sample

    counts = {"training": 16, "validation": 8, "test": 8}
    return made_once(
        tmp_path_factory, "sample", lambda folder: write_sample(folder, counts, seed=0, height=96, width=128)
    )


@pytest.fixture(scope="session")
def stage(run_script, tiny_sample):
    """Function that runs one stage with the tests' budget; `first` goes before the settings."""

    def run(script, run_dir, *options, data_dir=tiny_sample, first=None, **how):
        command = [script, *([first] if first else []), *BUDGET, "--data-dir", data_dir, "--run-dir", run_dir, *options]
        return run_script(*command, **how)

    return run


@pytest.fixture(scope="session")
def finished(stage, tmp_path_factory):
    """Run folder after all six stages; read only."""

    def make(folder):
        commands = [("seg_train.py",), ("seg_predict.py",), ("resize.py",)]
        for name in BACKBONES:
            commands += [("training.py", "--backbone-name", name), ("cls_predict.py", "--backbone-name", name)]
        for script, *options in [*commands, ("vote.py",)]:
            result = stage(script, folder, *options, eager=False, tiny=script == "training.py")
            assert result.returncode == 0, result.stderr
            print(result.stdout)

    # A copy of its own for each worker, as a run folder takes one stage at a time.
    return shutil.copytree(made_once(tmp_path_factory, "run", make), tmp_path_factory.mktemp("run") / "finished")
