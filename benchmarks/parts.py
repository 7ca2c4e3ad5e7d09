"""What run.py measures in a process of its own: `python benchmarks/parts.py PART ARGUMENTS` prints it as JSON.

Our side of a training is made of the functions that the stages call, in their order, the allocator first. The plain one
is `model.fit` and `model.predict` on arrays in memory, in a process that has left the allocator alone.
"""

import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

from config import PRESETS
from pipeline.allocator import keep_freed_memory

# Side of the images in pixels, and images a step.
NETWORKS = {
    **{"unet": (128, 16), "xception": (128, 32)},
    **{name: (96, 32) for name in ("inception_v3", "resnet50", "densenet169")},
}
STEPS, EPOCHS = 4, 3
PREDICTED, PREDICTIONS = 256, 3
METHODS, RESAMPLES = 3, 100


def settings(name, folder=Path("nowhere")):
    """The settings with which both sides build a network."""
    side, batch_size = NETWORKS[name]
    own = {"unet_batch_size": batch_size} if name == "unet" else {"backbone_name": name, "batch_size": batch_size}
    return replace(PRESETS["isic2017_256"], run_dir=folder, image_size=side, weights="none", **own)


def make_network(name):
    """The compiled network."""
    import seg_train
    import training

    config = settings(name)
    if name == "unet":
        return seg_train.make_network(config)
    network = training.make_network(config)
    training.compile_network(network, config)
    return network


def paths(folder, count):
    """So many images, and their masks."""
    images = sorted(Path(folder).glob("images/*.png"))[:count]
    return images, [Path(folder) / "masks" / path.name for path in images]


def some_labels(count):
    """One-hot labels (images, 3), float32."""
    import numpy as np

    return np.eye(3, dtype=np.float32)[np.arange(count) % 3]


def train(fit, count):
    """Images a second of the training steps of every epoch but the first, in which the step is traced.

    Args:
        fit: function of a list of callbacks that trains for `EPOCHS` epochs.
        count: images an epoch.
    """
    import keras

    speeds = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            if batch == STEPS - 1:  # validation and checkpoint come after it
                speeds.append(count / (time.perf_counter() - self.start))

    fit([Clock()])
    return speeds[1:]


def repeat(predict, count):
    """Images a second of every repetition but the first."""
    speeds = []
    for _ in range(PREDICTIONS):
        start = time.perf_counter()
        predict()
        speeds.append(count / (time.perf_counter() - start))
    return speeds[1:]


def ours(name, folder):
    """Our training and prediction, from files."""
    keep_freed_memory()
    from contextlib import redirect_stdout

    import numpy as np

    import seg_train
    import training
    from data.images import read_image
    from pipeline.fitting import fit
    from pipeline.inference import infer

    batch_size = NETWORKS[name][1]
    count, run_dir = STEPS * batch_size, Path(tempfile.mkdtemp(dir=folder))
    config, network = settings(name, run_dir), make_network(name)
    images, masks = paths(folder, count)
    with redirect_stdout(sys.stderr):
        if name == "unet":
            training_batches = seg_train.make_batches(config, "training", images, masks)
            validation_batches = seg_train.make_batches(config, "validation", images[:batch_size], masks[:batch_size])
        else:
            crops = {"training": images, "validation": images[:batch_size]}
            labels = {split: some_labels(len(files)) for split, files in crops.items()}
            training_batches, validation_batches = training.make_batches(config, crops, labels).values()
        speeds = train(
            lambda clock: fit(network, training_batches, validation_batches, EPOCHS, run_dir / "c", callbacks=clock),
            count,
        )
    images, _ = paths(folder, PREDICTED)
    work = partial(infer, network, read_image, images, batch_size, config.workers)
    batches = np.stack([read_image(path) for path in images]).reshape(-1, batch_size, *network.input_shape[1:])
    return {
        "training": speeds,
        "prediction": repeat(lambda: list(work()), PREDICTED),
        "network alone": repeat(lambda: list(map(network.predict_on_batch, batches)), PREDICTED),
    }


def plain(name, folder):
    """`model.fit` and `model.predict`, on arrays."""
    import numpy as np

    from data.images import read_grey, read_image

    batch_size = NETWORKS[name][1]
    count = STEPS * batch_size
    network = make_network(name)
    images, masks = paths(folder, PREDICTED)
    arrays = np.stack([read_image(path) for path in images])
    targets = some_labels(count)
    if name == "unet":
        targets = np.stack([read_grey(path) for path in masks[:count]])[..., None] / np.float32(255)
    in_memory = arrays[:count].astype(np.float32), targets
    speeds = train(
        lambda clock: network.fit(*in_memory, batch_size=batch_size, epochs=EPOCHS, callbacks=clock, verbose=0), count
    )
    work = partial(network.predict, arrays, batch_size=batch_size, verbose=0)
    return {"training": speeds, "prediction": repeat(work, PREDICTED)}


def batches(count):
    """Seconds of an epoch of `Batches` whose images cost nothing."""
    import numpy as np

    from data.batches import Batches

    labels = some_labels(int(count))
    dataset = Batches(np.zeros((len(labels), 4, 4, 3), np.uint8), labels, batch_size=32, shuffle=True)
    start = time.perf_counter()
    for k in range(len(dataset)):
        dataset[k]
    return time.perf_counter() - start


def bootstrap(count):
    """Seconds of the figures of some methods, with their intervals."""
    import numpy as np

    from evaluation.bootstrap import measure

    generator, labels = np.random.default_rng(0), some_labels(int(count))
    methods = {str(k): generator.dirichlet(np.ones(3), len(labels)) * 0.7 + 0.3 * labels for k in range(METHODS)}
    measure(labels[:1000], {"0": methods["0"][:1000]}, repetitions=2)  # imports and the like
    start = time.perf_counter()
    measure(labels, methods, "0", RESAMPLES)
    return time.perf_counter() - start


def own_images(folder, output):
    """Seconds of predict.py on a folder of images, but for its networks and pictures."""
    from contextlib import redirect_stdout
    from types import SimpleNamespace

    import numpy as np

    import predict
    from pipeline import finished_run

    class Run:
        """A run that finds the same in every image, at once."""

        def __init__(self, config):
            pass

        def load_networks(self):
            pass

        def diagnose(self, paths, on_mask):
            answer = {"vote": np.full(3, 1 / 3), "mean": np.full(3, 1 / 3)}
            for path in paths:
                view = {"image": None, "scale": 1.0, "mask": None, "box": (0, 1, 0, 1), "crop": None}
                yield finished_run.Diagnosis(path=path, probabilities=answer, **view)

    predict.Run = Run
    empty = SimpleNamespace(savefig=lambda path, dpi: path.touch())
    predict.draw_probabilities = lambda *_, footnote: empty
    config = predict.Settings(paths=(Path(folder),), output=Path(output))
    with redirect_stdout(sys.stderr):
        start = time.perf_counter()
        predict.main(config)
        return time.perf_counter() - start


if __name__ == "__main__":
    part = {part.__name__: part for part in (ours, plain, batches, bootstrap, own_images)}[sys.argv[1]]
    print(json.dumps(part(*sys.argv[2:])))
