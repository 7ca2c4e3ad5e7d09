"""Backend, devices (each computes its part of every batch) and precision of the networks."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import keras

from utils.errors import InputError

CPU_INFO = Path("/proc/cpuinfo")


class AnyBatch(keras.distribution.DataParallel):
    """Data parallelism for batches of any size, also for a smaller last batch.

    Keras's `DataParallel` sends each device its part of a batch, so the number of devices must divide every batch. Here
    each device gets the whole batch, and the output of the first layer is divided among them. XLA pads unequal parts
    and ignores the padding in sums and means. So a step gives the same result as on one device, and the statistics of
    batch normalisation are those of the whole batch.
    """

    def get_data_layout(self, data_shape):
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)

    def get_tensor_layout(self, path):
        return keras.distribution.TensorLayout([self.batch_dim_name], self.device_mesh)


def visible_devices():
    """Names of the devices that one training can use: all accelerators, or the CPU if there are none.

    Only JAX can use more than one. Keras 3.15 has no distribution for PyTorch, and later versions need one process per
    device. With TensorFlow's `MirroredStrategy`, Keras adds up the parts of a batch before each epoch, which fails if
    their sizes differ. And a convolution fails on a device that gets no image, as with a last batch of one image.
    """
    if keras.backend.backend() == "torch":  # Keras lists no devices for it
        import torch

        return ["gpu:0" if torch.cuda.is_available() else "cpu:0"]
    visible = keras.distribution.list_devices()
    return visible if keras.backend.backend() == "jax" else visible[:1]


def train_on(devices):
    """Train all networks that are built after this call on several devices.

    Args:
        devices: number of devices; 0 for all that are visible.

    Returns:
        The number of devices in use.

    Raises:
        InputError: if fewer are visible, or the backend can use only one.
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
    """Set and print the devices and the precision of all networks that are built after this call.

    See `Config.devices` and `Config.mixed_precision`.

    Raises:
        InputError: if there are fewer devices.
    """
    devices = train_on(config.devices)
    precision = config.mixed_precision
    if precision == "auto":
        precision = gpu_precision() if device() == "gpu" else cpu_precision()
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")
    print_device(devices=devices)


def cpu_precision():
    """bfloat16 if this CPU has instructions for it (AVX512_BF16 or AMX_BF16) and TensorFlow uses them by oneDNN.

    Otherwise float32, because emulated bfloat16 is slower. This was measured only with TensorFlow on x86-64.
    """
    if keras.backend.backend() == "tensorflow" and os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0":
        with suppress(OSError):
            if not {"avx512_bf16", "amx_bf16"}.isdisjoint(CPU_INFO.read_text(encoding="utf-8").split()):
                return "bfloat16"
    return "float32"


def gpu_precision():
    """The 16-bit precision that is fast on the first GPU: bfloat16 from compute capability 8 on, else float16."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        details = tensorflow.config.experimental.get_device_details(tensorflow.config.list_physical_devices("GPU")[0])
        capability = details.get("compute_capability", (0,))
    elif keras.backend.backend() == "jax":
        import jax

        capability = getattr(jax.devices()[0], "compute_capability", "0").split(".")  # a text like "8.0"
    else:
        import torch

        capability = torch.cuda.get_device_capability()
    return "bfloat16" if int(capability[0]) >= 8 else "float16"


def gpu_is_unused():
    """Whether TensorFlow finds no GPU although the machine has one by NVIDIA. This reserves no GPU memory."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow

    visible = tensorflow.config.list_physical_devices("GPU")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not (visible or hidden) and bool(nvidia_gpus())


@cache
def why_no_gpu():
    """Why TensorFlow does not use the NVIDIA GPU of this machine, from its log; None if there is no such problem.

    The scripts turn this log off, because it is long even without a problem. So another process imports TensorFlow.
    """
    if not gpu_is_unused():
        return None
    code = "import tensorflow; tensorflow.config.list_physical_devices('GPU')"
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0"}
    log = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stderr
    reasons = [line.partition("] ")[2] for line in log.splitlines() if re.search("cuda|gpu", line, re.I)]
    return f"TensorFlow does not use the GPU of this machine: {' '.join(filter(None, reasons)) or log.strip()}"


def nvidia_gpus():
    """Device files of the NVIDIA GPUs that this process can see (Linux)."""
    return list(Path("/dev").glob("nvidia[0-9]*"))


def print_device(network=None, devices=1):
    """Print, once per script, what computes a network, or the networks that are built after this call."""
    say_once(f"computing with {computed_with(network, devices)}")
    if reason := why_no_gpu():
        say_once(reason)


def computed_with(network=None, devices=1):
    """Text: backend, devices and precision of a network, or of the networks that are built after this call."""
    backend = keras.backend.backend()
    precision = {keras.config.dtype_policy().compute_dtype}
    if network is not None:
        precision = {layer.compute_dtype for layer in network.layers}
    where = device() if devices == 1 else f"{devices} {device()}s"
    return f"{backend} {sys.modules[backend].__version__} on {where}, {' and '.join(sorted(precision))}"


def device():
    """The kind of device that the networks run on, "gpu" or "cpu"."""
    return "gpu" if visible_devices()[0].startswith(("gpu", "cuda")) else "cpu"


@cache
def say_once(text):
    """Print a text, unless this process has printed it before."""
    print(text)
