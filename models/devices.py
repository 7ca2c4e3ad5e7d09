"""Training on several devices of one machine: each takes its part of every batch."""

import keras

from errors import InputError


class AnyBatch(keras.distribution.DataParallel):
    """Data parallelism for batches of any size, a ragged last one included.

    Keras's own sends each device its part of a batch, so that every batch has to divide by their number. Here each is
    sent the whole batch, and takes its part of what the first layer makes of it: XLA fills unequal parts up, and leaves
    what it filled in out of sums and means. So a step computes what it does on one device, and the statistics of batch
    normalisation are those of the whole batch.
    """

    def get_data_layout(self, data_shape):
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)

    def get_tensor_layout(self, path):
        return keras.distribution.TensorLayout([self.batch_dim_name], self.device_mesh)


def visible_devices():
    """Names of the devices that one training can use: all accelerators, or the CPU where there are none.

    JAX alone can use more than one. Keras 3.15 has no distribution for PyTorch, and later versions want a process for
    each device. With TensorFlow's `MirroredStrategy` it takes a batch before each epoch and adds its parts up, which
    fails where they are unequal; what a `PyDataset`'s threads have read meanwhile spills into the epoch; and a device
    that is left without an image, by a last batch of one, ends in an error of the convolution.
    """
    if keras.backend.backend() == "torch":  # for which Keras lists none
        import torch

        return ["gpu:0" if torch.cuda.is_available() else "cpu:0"]
    visible = keras.distribution.list_devices()
    return visible if keras.backend.backend() == "jax" else visible[:1]


def train_on(devices):
    """Have all networks that are built from here on trained on several devices.

    Args:
        devices: how many; 0 for all that are visible.

    Returns:
        How many they are.

    Raises:
        InputError: if fewer are visible, or the backend uses one alone.
    """
    backend, visible = keras.backend.backend(), visible_devices()
    if devices > len(visible) and backend != "jax":
        raise InputError(f"devices = {devices}, but {backend} trains on one: set KERAS_BACKEND=jax")
    if devices > len(visible):
        raise InputError(f"devices = {devices}, but jax sees {len(visible)} ({', '.join(visible)}): take fewer")
    used = visible[: devices or None]
    keras.distribution.set_distribution(AnyBatch(devices=used) if len(used) > 1 else None)
    return len(used)
