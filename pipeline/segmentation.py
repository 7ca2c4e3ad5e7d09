"""Segment image files: worker threads decode and finish masks while the network runs."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from data.images import image_size, read_square
from data.lesion import lesion_mask
from pipeline.inference import infer


def segment(network, paths, use, batch_size, workers, sigma, threshold):
    """Predict the lesion's mask in image files, in constant memory.

    Args:
        network: a U-Net as `unet` builds it, or a `pipeline.inference.QuickStart` of one.
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
