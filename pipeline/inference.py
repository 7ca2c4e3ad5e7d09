"""Inference on image files: worker threads read the next batch, and finish masks, while the network runs."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import keras
import numpy as np

from data.images import image_size, read_square
from data.lesion import lesion_mask
from utils.errors import InputError

UNCOMPILED = 24  # images; compiling a network takes about as long as predicting so many images without compiling


def infer(network, read, paths, batch_size, workers):
    """Predict image files, in constant memory.

    `Model.predict` of a `PyDataset` does the same, but is 10 % slower on a CPU, and compiles the network again for a
    smaller last batch. Here the last batch is padded.

    Args:
        network: a `keras.Model` of images (batch, height, width, 3), or a `QuickStart` of one.
        read: function that reads a path into such an image.
        paths: sequence of image files.
        batch_size: images per step of the network.
        workers: threads that read.

    Yields:
        The network's output for each image, in the order of `paths`.

    Raises:
        InputError: if a file cannot be read, or if a prediction is NaN or infinite.
    """
    predict = network.predict if isinstance(network, QuickStart) else lambda images: filled(network, images, batch_size)
    batches = [paths[i : i + batch_size] for i in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(workers) as pool:
        reading = pool.map(read, batches[0] if batches else ())
        for following in [*batches, ()][1:]:
            images = np.stack(list(reading))
            reading = pool.map(read, following)
            yield from check_finite(predict(images), network)


def segment(network, paths, use, batch_size, workers, sigma, threshold):
    """Predict the lesion's mask in image files, in constant memory.

    Args:
        network: a U-Net as `unet` builds it, or a `QuickStart` of one.
        paths: sequence of image files.
        use: function (path, mask) to call with each mask (height, width), uint8, 0 or 255, of its image's own size. It
            runs in a worker thread.
        batch_size: images per step of the network.
        workers: threads that decode the next batch and finish the masks of the last batch while the network runs.
        sigma, threshold: see `data.lesion.lesion_mask`.

    Yields:
        What `use` returns, in the order of `paths`.
    """
    side = network.input_shape[1]

    def finish(path, probability):
        return use(path, lesion_mask(probability, *image_size(path), sigma, threshold))

    finishing = deque()
    with ThreadPoolExecutor(workers) as pool:
        read = partial(read_square, size=side)
        for path, probability in zip(paths, infer(network, read, paths, batch_size, workers), strict=True):
            finishing.append(pool.submit(finish, path, probability[..., 0]))
            if len(finishing) > batch_size:
                yield finishing.popleft().result()
        yield from (mask.result() for mask in finishing)


def filled(network, images, batch_size):
    """The network's outputs for at most `batch_size` images, computed on a batch of that size."""
    filling = np.repeat(images[-1:], batch_size - len(images), axis=0)
    return network.predict_on_batch(np.concatenate([images, filling]))[: len(images)]


class QuickStart:
    """A network that predicts its first images without being compiled, so that they need not wait.

    Args:
        network: a `keras.Model` of images (batch, height, width, 3).
        batch_size: images of a full batch.
        plain: the network without test-time augmentation, where `network` has it. It is kept as an attribute.
    """

    def __init__(self, network, batch_size, plain=None):
        self.network, self.batch_size, self.seen = network, batch_size, 0
        self.plain = plain or network
        self.name, self.input_shape = network.name, network.input_shape

    def predict(self, images):
        """The network's outputs, a NumPy array, for at most `batch_size` images."""
        self.seen += len(images)
        # JAX would compile every operation separately if the network were not compiled as a whole.
        if keras.backend.backend() == "jax":
            return filled(self.network, images, self.batch_size)
        if keras.backend.backend() == "torch":  # compiles nothing, and would keep all feature maps for a gradient
            return self.network.predict_on_batch(images)
        if self.seen > UNCOMPILED and len(images) == self.batch_size:
            return self.network.predict_on_batch(images)
        return keras.ops.convert_to_numpy(self.network(images, training=False))


def check_finite(outputs, network):
    """Check that a network's outputs are finite, and return them.

    Raises:
        InputError: if one is NaN or infinite.
    """
    if not np.isfinite(outputs).all():
        raise InputError(f"outputs of the network {network.name} are not finite: train it again with --overwrite")
    return outputs
