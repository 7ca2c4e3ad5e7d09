"""Inference on image files: worker threads read the next batch while the network runs."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from utils.errors import InputError


def infer(network, read, paths, batch_size, workers):
    """Predict image files, in constant memory.

    (`Model.predict` of a `PyDataset` does the same a tenth slower on a CPU, and compiles the network once more for a
    smaller last batch; here that one is filled up.)

    Args:
        network: a `keras.Model` of images (batch, height, width, 3).
        read: function that reads a path into such an image.
        paths: sequence of image files.
        batch_size: images a step of the network.
        workers: threads that read.

    Yields:
        The network's output for each image, in the order of `paths`.

    Raises:
        InputError: if a file cannot be read, or what the network says of one is no number.
    """
    batches = [paths[i : i + batch_size] for i in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(workers) as pool:
        reading = pool.map(read, batches[0] if batches else ())
        for batch, following in zip(batches, [*batches, ()][1:], strict=True):
            images = np.stack(list(reading))
            reading = pool.map(read, following)
            filling = np.repeat(images[-1:], batch_size - len(batch), axis=0)
            yield from check_finite(network.predict_on_batch(np.concatenate([images, filling]))[: len(batch)], network)


def check_finite(outputs, network):
    """A network's outputs, if they are numbers.

    Raises:
        InputError: if one is NaN or infinite.
    """
    if not np.isfinite(outputs).all():
        raise InputError(f"outputs of the network {network.name} are no numbers: train it again with --overwrite")
    return outputs
