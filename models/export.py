"""Export networks for other programs: the U-Net and the classifiers of a run, with their preprocessing inside.

    python -m models.export runs/fine_tuned --format onnx
    python -m models.export models/trained --to exported

Reads   every .keras file of the folder, without checkpoints and the networks of folds; or one .keras file

Writes  <to>/<the same path>.onnx    input: RGB images or crops (batch, side, side, 3), float32, 0 to 255; of the vote
                                     probabilities (batch, classes, networks). Output: probabilities of lesion (batch,
                                     side, side, 1), or of the classes (batch, classes)

Whatever precision a network was trained in, it is exported in float32. A U-Net with a backbone as encoder cannot be
exported: Keras 3.15 loses constants of its resizing layers. Needs `pip install -r requirements-export.txt`,
and the backend tensorflow or torch.
"""

import tempfile
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tyro
from tyro.conf import Positional

from models.compact import compact
from utils.errors import InputError, one_sentence_errors
from utils.files import atomic_write

NEEDED = {"tensorflow": ("onnx", "tf2onnx"), "torch": ("onnx", "onnxscript")}  # by Keras's exporter


@dataclass(frozen=True)
class Settings:
    """Export the networks of a run folder, or one network."""

    run: Positional[Path]
    """Run folder, or a .keras file."""
    format: Literal["onnx"] = "onnx"
    """What to write."""
    to: Path | None = None
    """Folder to write to; without it, onnx/ of the run folder, or the folder of the file."""


def main(settings):
    files = network_files(settings.run)
    folder = settings.to or (settings.run / "onnx" if settings.run.is_dir() else settings.run.parent)
    refused = []
    for file in files:
        relative = file.relative_to(settings.run) if settings.run.is_dir() else Path(file.name)
        target = (folder / relative).with_suffix(".onnx")
        try:
            export(file, target)
        except InputError as error:
            refused.append(str(error))
            continue
        print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")
    if refused:
        raise InputError("; ".join(refused))


def network_files(run):
    """The .keras files to export.

    Raises:
        InputError: if there are none.
    """
    if run.suffix == ".keras" and run.is_file():
        return [run]
    files = [
        path
        for path in sorted(run.rglob("*.keras"))
        if not path.name.startswith(".")
        and not any(part == "checkpoints" or part.startswith("fold_") for part in path.relative_to(run).parts)
    ]
    if not files:
        raise InputError(f"{run} holds no .keras file: name the folder of a finished run, or a network's file")
    return files


def export(file, target):
    """Write a network as ONNX.

    Args:
        file: a .keras file.
        target: the .onnx file.

    Raises:
        InputError: if a package is missing, the backend cannot export, or the file is damaged.
    """
    backend = keras.backend.backend()
    if backend not in NEEDED:
        raise InputError(f"KERAS_BACKEND = {backend} does not export to ONNX: set KERAS_BACKEND=tensorflow")
    if missing := [name for name in NEEDED[backend] if find_spec(name) is None]:
        raise InputError(f"the export needs {' and '.join(missing)}: run `pip install -r requirements-export.txt`")
    with tempfile.TemporaryDirectory() as folder:
        in_float32 = Path(folder) / file.name
        try:
            compact(file, in_float32, half=False)
            network = keras.saving.load_model(in_float32, compile=False)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"{file} is damaged ({str(error).splitlines()[0]}): make it again") from None
        network(np.zeros((1, *network.input_shape[1:]), np.float32))  # the exporter wants a network that was called
        import onnx  # optional, see requirements-export.txt

        with atomic_write(target) as part:
            network.export(part, format="onnx", verbose=False)
            # Keras's exporter leaves constants of some layers without values, as inputs.
            if len(onnx.load(part, load_external_data=False).graph.input) > 1:
                raise InputError(f"{file} cannot be exported: Keras {keras.__version__} loses constants of its layers")


if __name__ == "__main__":
    with one_sentence_errors():
        main(tyro.cli(Settings, prog="python -m models.export", description=__doc__))
