"""Export networks for other programs: the U-Net, the classifiers and the vote of a run, preprocessing included.

    KERAS_BACKEND=torch python -m models.export models/trained --format onnx

Reads   the networks of a run folder, without those of folds; or one .keras file

Writes  <to>/<the same path>.onnx    input: RGB images or crops (batch, side, side, 3), float32, 0 to 255; of the vote
                                     probabilities (batch, classes, networks). Output: probabilities of lesion (batch,
                                     side, side, 1), or of the classes (batch, classes)

Networks are exported in float32, whatever precision they were trained in; each takes up to a minute. PyTorch is needed:
`pip install -r requirements-export.txt`.
"""

import logging
import tempfile
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import keras
import tyro
from tyro.conf import Positional

from models.compact import UNREADABLE, compact, load
from utils.errors import InputError, one_sentence_errors
from utils.files import atomic_write


@dataclass(frozen=True)
class Settings:
    """Export the networks of a run folder, or one network."""

    run: Positional[Path]
    """Run folder, or a .keras file."""
    format: Literal["onnx"] = "onnx"
    """Format to write."""
    to: Path | None = None
    """Folder to write to; without it, onnx/ in the run folder, or the folder of the file."""


def main(settings):
    if keras.backend.backend() != "torch":
        raise InputError("the export needs PyTorch as Keras's backend: put KERAS_BACKEND=torch before the command")
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise InputError(f"{missing[0]} is not installed: run `pip install -r requirements-export.txt`")
    files = network_files(settings.run)
    in_folder = settings.run.is_dir()
    folder = settings.to or (settings.run / "onnx" if in_folder else settings.run.parent)
    for file in files:
        path = file.relative_to(settings.run) if in_folder else file.name
        target = (folder / path).with_suffix(".onnx")
        export(file, target)
        print(f"wrote {target}")


def network_files(run):
    """List the .keras files to export.

    Raises:
        InputError: if there are none.
    """
    if run.suffix == ".keras" and run.is_file():
        return [run]
    files = sorted([*run.glob("*/[!.]*.keras"), *run.glob("backbones/*/[!.]*.keras")])
    if not files:
        raise InputError(f"{run} holds no .keras file: name the folder of a finished run, or a network's file")
    return files


def export(file, target):
    """Write a network as ONNX; Keras's backend must be PyTorch.

    `keras.Model.export` cannot do it for batches of any size: with TensorFlow, constants of the input scaling and of
    resized maps become inputs without values; with PyTorch, it fails for strided layers with padding "same".

    Args:
        file: a .keras file.
        target: the .onnx file.

    Raises:
        InputError: if the file is damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        in_float32 = Path(folder) / file.name
        try:
            compact(file, in_float32, half=False)
            trained = load(in_float32)
        except UNREADABLE as error:
            raise InputError(f"{file} is damaged ({str(error).partition(chr(10))[0]}): make it again") from None
    import torch  # the backend, so it is there

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not installed

    inputs = keras.Input(trained.input_shape[1:])
    # `training=False`: otherwise PyTorch traces batch normalisations as in training.
    network = keras.Model(inputs, trained(inputs, training=False)).eval()
    with atomic_write(target) as part, warnings.catch_warnings(action="ignore"):  # about operations that are not used
        torch.onnx.export(
            network,
            (keras.ops.zeros((2, *inputs.shape[1:])),),  # one image would fix the size of the batch
            part,
            input_names=[trained.inputs[0].name],
            output_names=["output"],
            dynamic_shapes=(({0: torch.export.Dim("batch")},),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


if __name__ == "__main__":
    with one_sentence_errors():
        main(tyro.cli(Settings, prog="python -m models.export", description=__doc__))
