"""Batches for Keras: OpenCV reads and warps in worker threads while the network runs."""

import math
from contextlib import contextmanager
from functools import cache

import keras
import numpy as np

from utils.errors import InputError


class LazyImages:
    """A sequence whose items are read when they are indexed. Memory does not grow with their number, unless `keep`.

    Args:
        read: function from an item to an array.
        items: the items, for example paths.
        keep: read each item once and keep it in memory. The caller must not write to a kept item.
    """

    def __init__(self, read, items, keep=False):
        self.read = cache(read) if keep else read
        self.items = list(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.read(self.items[index])


class Batches(keras.utils.PyDataset):
    """Batches of images, with their masks or labels.

    Order and augmentation depend only on (`seed`, `epoch`, sample), and not on the number of threads. Set `epoch` to
    repeat an epoch.

    Args:
        images: sequence of uint8 arrays (height, width, 3), all of one size: an array, or `LazyImages`.
        targets: sequence of masks (height, width), uint8, 0 to 255, or of one-hot labels (classes,); None to predict.
        batch_size: images per batch; the last batch of an epoch may hold fewer.
        augment: function (rng, image, mask or None) that returns the augmented pair; None for no augmentation.
        shuffle: draw a new order for every epoch.
        weights: array (images,), not negative. An image gets a share of the `per_epoch` samples that is proportional to
            its weight, rounded up or down at random. None takes every image once.
        per_epoch: samples per epoch, if there are weights.
        seed: seed of order and augmentation.
        workers: threads that prepare batches.

    A batch is a tuple: images (batch, height, width, 3), uint8, and, if there are targets, masks (batch, height, width,
    1), float32, 0 to 1, or labels (batch, classes), float32.

    Raises:
        InputError: if a file cannot be read. It is also kept in `error`, because backends wrap the errors of a worker.
    """

    def __init__(
        self,
        images,
        targets=None,
        *,
        batch_size,
        augment=None,
        shuffle=False,
        weights=None,
        per_epoch=None,
        seed=0,
        workers=1,
    ):
        super().__init__(workers=workers, max_queue_size=2 * workers)
        self.images, self.targets = images, targets
        self.batch_size, self.augment, self.shuffle, self.seed = batch_size, augment, shuffle, seed
        self.weights, self.per_epoch = weights, len(images) if weights is None else per_epoch
        self.epoch = 0
        self.drawn = None, None  # an epoch and its order
        self.error = None

    def __len__(self):
        return math.ceil(self.per_epoch / self.batch_size)

    def __getitem__(self, batch):
        first = batch * self.batch_size
        indices = self.order()[first : first + self.batch_size]
        # With weights, an image can occur several times. Samples are numbered by place, so each is warped differently.
        numbers = indices if self.weights is None else len(self.images) + first + np.arange(len(indices))
        samples = [self.sample(i, n) for i, n in zip(indices, numbers, strict=True)]
        images, targets = zip(*samples, strict=True)
        if self.targets is None:
            return (np.stack(images),)
        targets = np.stack(targets).astype(np.float32)
        if targets.ndim == 3:
            targets = targets[..., np.newaxis] / np.float32(255)
        return np.stack(images), targets

    def order(self):
        """Indices of the current epoch's samples, in their order; drawn once per epoch.

        No lock is needed: threads may draw it at the same time, but all draw the same order, and epoch and order are
        set in one assignment.
        """
        epoch, (drawn_epoch, order) = self.epoch, self.drawn
        if drawn_epoch != epoch:
            order = self.draw_order(epoch)
            self.drawn = epoch, order
        return order

    def draw_order(self, epoch):
        """Draw an epoch's order."""
        rng = np.random.default_rng((self.seed, epoch))
        order = np.arange(len(self.images))
        if self.weights is not None:  # systematic sampling: one draw, then equal steps along the shuffled weights
            rng.shuffle(order)
            ends = np.cumsum(self.weights[order])
            steps = (rng.random() + np.arange(self.per_epoch)) * ends[-1] / self.per_epoch
            order = order[np.searchsorted(ends, steps, side="right").clip(max=len(order) - 1)]
        if self.shuffle:
            rng.shuffle(order)
        return order

    def sample(self, index, number):
        """Image and target (None if there is none) of one sample, augmented by its number in the current epoch."""
        try:
            image = self.images[index]
            target = None if self.targets is None else self.targets[index]
        except InputError as error:
            self.error = error
            raise
        if self.augment is None:
            return image, target
        rng = np.random.default_rng((self.seed, self.epoch, 1 + int(number)))
        if np.ndim(target) == 2:
            return self.augment(rng, image, target)
        return self.augment(rng, image)[0], target


@contextmanager
def bad_files_named(*batches):
    """Raise the `InputError` of a worker in place of the error in which the backend wraps it."""
    try:
        yield
    except Exception:
        for error in filter(None, (split_batches.error for split_batches in batches)):
            raise error from None
        raise
