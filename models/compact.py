"""Write smaller copies of network files: kernels as 16-bit floats, arithmetic in float32.

A .keras file is a zip archive of config.json, metadata.json and model.weights.h5. Keras converts weights to the type of
their variables, so plain `keras.saving.load_model` opens a copy; `load` is faster.
"""

import io
import json
import tempfile
import zipfile
import zlib
from pathlib import Path

import h5py  # Keras needs it too
import keras
import numpy as np

from utils.errors import InputError
from utils.files import atomic_write

# What `load` raises for a damaged file.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
CONFIG, WEIGHTS, ORDER = "config.json", "model.weights.h5", "order.json"
# Most of the change of an output comes from rounding small kernels. Kernels of at most so many weights are stored as
# float32 with so many significant bits (float16 holds 11).
SMALL_KERNEL, SIGNIFICANT_BITS = 40_000, 14
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip archive can hold


def compact(source, target, half=True, small_kernel=SMALL_KERNEL):
    """Copy a network file. The same network gives the same bytes.

    Args:
        source: a .keras file.
        target: where to write the copy. All its layers compute in float32.
        half: store large kernels as float16, and round small ones to `SIGNIFICANT_BITS`. Biases and batch
            normalisations, 1 % of the file, stay float32, because the probabilities then change ten times less.
        small_kernel: the most weights of a small kernel.

    Raises:
        InputError: if a weight is NaN, or too large for 16 bits.
    """
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in sorted(archive.namelist())}
    config = in_float32(json.loads(members[CONFIG]))
    config.pop("compile_config", None)
    members[CONFIG] = json.dumps(config).encode()
    if half:
        try:
            members[WEIGHTS] = half_weights(members[WEIGHTS], small_kernel)
        except OverflowError as error:
            raise InputError(f"{source} holds {error}, which 16 bits cannot hold: train the network again") from None
        members[ORDER] = json.dumps(variable_order(members, target)).encode()
    write_archive(target, members)


def load(path):
    """Open a network file.

    A copy by `compact` lists its weights in the order of the network's variables, so they are assigned directly.
    `keras.saving.load_model` needs as much time to match weights and variables as to build the network.

    Returns:
        A `keras.Model` that is not compiled.

    Raises:
        UNREADABLE: for a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        if ORDER not in archive.namelist():
            return keras.saving.load_model(path, compile=False)
        config, order = json.loads(archive.read(CONFIG)), json.loads(archive.read(ORDER))
        weights = io.BytesIO(archive.read(WEIGHTS))
    network = keras.saving.deserialize_keras_object(config)
    with h5py.File(weights, "r") as file:
        for variable, name in zip(network.variables, order, strict=True):
            if name is not None:
                variable.assign(file[name][()])
    return network


def write_archive(path, members):
    """Write a zip archive of a dictionary from name to bytes; the same content gives the same bytes."""
    with atomic_write(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, EARLIEST), content, zipfile.ZIP_DEFLATED)


def variable_order(members, target):
    """Find which weights belong to which variable.

    Each array of weights is filled with its own number. After Keras has loaded the file, the value of a variable shows
    which array belongs to it.

    Args:
        members: dictionary from the name of each file of a network's archive to its bytes.
        target: the file that will be written; only its name is used.

    Returns:
        The names of the HDF5 datasets in the order of `network.variables`; None for a variable that is not saved, such
        as the state of a dropout's random generator.
    """
    names, numbered = [], io.BytesIO(members[WEIGHTS])
    with h5py.File(numbered, "r+") as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        shapes = {name: file[name].shape for name in names}
        for number, name in enumerate(names, 1):
            shape, kind = file[name].shape, file[name].dtype.kind
            del file[name]
            file[name] = np.full(shape, number, np.float32 if kind == "f" else kind + "8")
    with tempfile.TemporaryDirectory() as folder:
        numbered_file = Path(folder) / Path(target).name
        write_archive(numbered_file, members | {WEIGHTS: numbered.getvalue()})
        network = keras.saving.load_model(numbered_file, compile=False)
    order = []
    for variable in network.variables:
        numbers = np.unique(keras.ops.convert_to_numpy(variable))
        name = names[int(numbers[0]) - 1] if len(numbers) == 1 and numbers[0] in range(1, len(names) + 1) else None
        order.append(name if name and shapes[name] == tuple(variable.shape) else None)
    return order


def in_float32(config):
    """A network's configuration, with float32 in place of mixed precision in every layer."""
    if isinstance(config, list):
        return [in_float32(item) for item in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy" and config["config"]["name"].startswith("mixed_"):
        return config | {"config": {"name": "float32"}}
    return {name: in_float32(value) for name, value in config.items()}


def half_weights(content, small_kernel):
    """Convert the bytes of an HDF5 file of weights: kernels become float16 or are rounded, arrays compressed.

    Raises:
        OverflowError: if a weight is NaN, or too large for float16.
    """
    compressed = io.BytesIO()
    with h5py.File(io.BytesIO(content), "r") as source, h5py.File(compressed, "w") as target:

        def copy(name, item):
            if isinstance(item, h5py.Group):
                copied = target.require_group(name)
            else:
                values = item[()]
                if values.ndim > 1 and np.issubdtype(values.dtype, np.floating):
                    with np.errstate(over="ignore"):
                        small = values.size <= small_kernel
                        values = rounded(values, SIGNIFICANT_BITS) if small else values.astype(np.float16)
                    if not np.isfinite(values).all():
                        raise OverflowError(f"a weight in {name}")
                # "shuffle" puts similar bytes (sign and exponent, or the end of the mantissa) side by side for gzip,
                # over the whole array, as it is one chunk.
                options = {"shuffle": True, "compression": "gzip", "chunks": values.shape} if values.size > 1024 else {}
                copied = target.create_dataset(name, data=values, **options)
            copied.attrs.update(item.attrs)

        source.visititems(copy)
        target.attrs.update(source.attrs)
    return compressed.getvalue()


def rounded(values, bits):
    """Floats rounded to a number of significant bits."""
    mantissa, exponent = np.frexp(values)  # the mantissa is from 0.5 up to 1
    return np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent)
