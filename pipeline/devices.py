"""What the networks are computed with: backend, devices (each takes its part of every batch), precision."""

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
        precision = gpu_precision() if device() == "gpu" else cpu_precision()
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")
    print_device(devices=devices)


def cpu_precision():
    """bfloat16 where TensorFlow computes in it on this CPU: oneDNN is on, and Linux lists AVX512_BF16 or AMX_BF16.

    Elsewhere float32: bfloat16 would be emulated there, and slower. It was measured with TensorFlow on x86-64 alone.
    """
    if keras.backend.backend() == "tensorflow" and os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0":
        with suppress(OSError):
            if not {"avx512_bf16", "amx_bf16"}.isdisjoint(CPU_INFO.read_text(encoding="utf-8").split()):
                return "bfloat16"
    return "float32"


def gpu_precision():
    """The shorter precision that the first GPU computes fast: bfloat16 from compute capability 8 on, else float16."""
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
    """Whether TensorFlow finds no GPU in a machine that has one of NVIDIA. It lists them and reserves no memory."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow

    found = tensorflow.config.list_physical_devices("GPU")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not (found or hidden) and bool(nvidia_gpus())


@cache
def why_no_gpu():
    """What TensorFlow logs about a GPU of NVIDIA that is in the machine and that it cannot use; None otherwise.

    Its log is silent in the scripts, as it is long even where all is well. So another process imports TensorFlow.
    """
    if not gpu_is_unused():
        return None
    code = "import tensorflow; tensorflow.config.list_physical_devices('GPU')"
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0"}
    log = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stderr
    about = [line.partition("] ")[2] for line in log.splitlines() if re.search("cuda|gpu", line, re.I)]
    return f"TensorFlow does not use the GPU of this machine: {' '.join(filter(None, about)) or log.strip()}"


def nvidia_gpus():
    """The GPUs of NVIDIA that its driver shows to this process (Linux)."""
    return list(Path("/dev").glob("nvidia[0-9]*"))


def print_device(network=None, devices=1):
    """Say once a script what a network is computed with, or those that are built from here on."""
    say_once(f"computing with {computed_with(network, devices)}")
    if reason := why_no_gpu():
        say_once(reason)


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
