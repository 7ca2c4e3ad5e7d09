"""What the networks are computed with: backend, devices (each takes its part of every batch), precision."""

import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import keras

from data.errors import InputError

CPU_INFO = Path("/proc/cpuinfo")


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
    fails where they are unequal; and a device that is left without an image, by a last batch of one, ends in an error
    of the convolution.
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


def set_devices_and_precision(config):
    """Set what all networks that are built from here on are trained on, and in which precision, and say both.

    See `Config.devices` and `Config.mixed_precision`.

    Raises:
        InputError: if there are not so many devices.
    """
    devices = train_on(config.devices)
    precision = config.mixed_precision
    if precision == "auto":
        precision = "bfloat16" if device() == "gpu" or cpu_has_bfloat16() else "float32"
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")
    tell_device(devices=devices)


def cpu_has_bfloat16():
    """Whether TensorFlow computes in bfloat16 on this CPU: oneDNN is on, and Linux lists AVX512_BF16 or AMX_BF16.

    Elsewhere bfloat16 is emulated, and slower than float32. It was measured with TensorFlow on x86-64 alone.
    """
    if keras.backend.backend() != "tensorflow" or os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return False
    with suppress(OSError):
        return not {"avx512_bf16", "amx_bf16"}.isdisjoint(CPU_INFO.read_text(encoding="utf-8").split())
    return False


def tell_device(network=None, devices=1):
    """Say once a script what a network is computed with, or those that are built from here on."""
    say_once(f"computing with {computed_with(network, devices)}")


def computed_with(network=None, devices=1):
    """Backend, devices and precision, as text: of a network, or of those that are built from here on."""
    backend = keras.backend.backend()
    precision = {keras.config.dtype_policy().compute_dtype}
    if network is not None:
        precision = {layer.compute_dtype for layer in network.layers}
    where = device() if devices == 1 else f"{devices} {device()}s"
    return f"{backend} {sys.modules[backend].__version__} on {where}, {' and '.join(sorted(precision))}"


def device():
    """What the networks run on, "gpu" or "cpu"."""
    return "gpu" if visible_devices()[0].startswith(("gpu", "cuda")) else "cpu"


@cache
def say_once(text):
    """Print something that holds for the whole script where it is first known."""
    print(text)
