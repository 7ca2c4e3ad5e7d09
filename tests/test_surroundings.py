"""What a user's home, streams, memory and devices do to scripts."""

import json
import os
import pwd
import subprocess
import sys
import types
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from pipeline import command_line, devices
from pipeline.command_line import choose_backend, memory_errors
from tests.conftest import REPOSITORY
from utils.errors import InputError

# ---- keras.json ------------------------------------------------------------------------------------------------------


@pytest.fixture
def keras_json(tmp_path, monkeypatch):
    """Function that writes a keras.json, as the only thing that says what the backend is."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "")

    def write(text):
        (tmp_path / "keras.json").write_text(text if isinstance(text, str) else json.dumps(text))
        return tmp_path / "keras.json"

    return write


def test_the_backend_of_keras_json_counts_as_the_variable_does(keras_json, monkeypatch):
    monkeypatch.setattr(command_line, "find_spec", lambda name: name if name != "torch" else None)
    choose_backend()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    monkeypatch.setenv("KERAS_BACKEND", "")
    file = keras_json({"backend": "jax"})
    choose_backend()
    assert os.environ["KERAS_BACKEND"] == "jax"
    keras_json({"backend": "torch"})
    choose_backend()
    assert os.environ["KERAS_BACKEND"] == "jax", "the variable wins"
    monkeypatch.setenv("KERAS_BACKEND", "")
    with pytest.raises(InputError, match=f"backend in {file} = 'torch' is not installed: install it, or set"):
        choose_backend()


def test_a_keras_json_that_keras_refuses_is_named(keras_json, monkeypatch):
    for content in ([], {"floatx": "int8"}, {"epsilon": 1}, {"image_data_format": "last"}, {"nnx_enabled": True}):
        file = keras_json(content)
        with pytest.raises(InputError, match=f"{file} holds settings that Keras refuses: correct or remove it"):
            choose_backend()
    keras_json("garbage")  # for which Keras takes its defaults
    choose_backend()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def test_networks_do_not_depend_on_keras_json(keras_json, tmp_path):
    keras_json({"floatx": "float16", "image_data_format": "channels_first", "epsilon": 0.1})
    code = (
        "import keras, models, numpy as np\n"
        "keras.utils.set_random_seed(0)\n"
        "network = models.classifier('resnet50', 32, weights='none')\n"
        "images = np.linspace(0, 255, 32 * 32 * 3, dtype='float32').reshape(1, 32, 32, 3)\n"
        "outputs = keras.ops.convert_to_numpy(network(images))\n"
        "loss = keras.losses.CategoricalCrossentropy()(np.eye(3)[:1], np.eye(3)[1:2])\n"
        "print(network.get_layer('conv1_conv').kernel.shape[2], outputs.dtype, outputs.tolist(), float(loss),"
        " {w.dtype for w in network.weights if 'seed' not in w.path})"
    )
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    said = []
    for home in (tmp_path, tmp_path / "empty"):
        environment["KERAS_HOME"] = str(home)
        done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True)
        said.append(done.stdout.decode())
        assert said[-1].startswith("3 float32 "), done.stderr
    # The same but for rounding, which may differ from process to process.
    first, second = (np.array(json.loads(text.split(" ", 2)[2].partition("]]")[0] + "]]")) for text in said)
    np.testing.assert_allclose(first, second, rtol=1e-4)
    assert said[0].partition("]]")[2] == said[1].partition("]]")[2]


# ---- home and streams ------------------------------------------------------------------------------------------------


def test_a_user_without_home_gets_no_folder_called_tilde(tmp_path, monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setenv("HOME", "to be restored at the end")
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    choose_backend()
    assert Path(os.path.expanduser("~")).is_absolute()
    assert Path(os.path.expanduser("~")).is_dir()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_fault_and_no_file_takes_their_place(tmp_path, closed):
    code = (
        "import os, sys\n"
        "from utils.errors import one_sentence_errors\n"
        "with one_sentence_errors():\n"
        "    file = open(sys.argv[1], 'w')\n"
        "    file.write(str(sys.stdout.isatty() or sys.stderr.isatty()))\n"
        "    print('said')\n"
        "    os.write(1, b'by a library'), os.write(2, b'by a library')"
    )
    command = f'"{sys.executable}" -c "$CODE" "{tmp_path}/file" {closed}'
    done = subprocess.run(command, shell=True, cwd=REPOSITORY, env={**os.environ, "CODE": code}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert (tmp_path / "file").read_text() == "False"


def test_no_matplotlibrc_changes_a_picture(run_script, tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nsavefig.facecolor: red\nlines.linewidth: 20\n")
    code = "import sys; from evaluation.plots import *; save(reliability(np.eye(3), np.eye(3)), sys.argv[1])"
    pictures = []
    for name, file in (("plain", os.devnull), ("own", tmp_path / "matplotlibrc")):
        result = run_script("-c", code, tmp_path / f"{name}.png", MATPLOTLIBRC=str(file))
        assert result.returncode == 0, result.stderr
        pictures.append(cv2.imread(str(tmp_path / f"{name}.png")))
    np.testing.assert_array_equal(*pictures)


# ---- memory and devices ----------------------------------------------------------------------------------------------


def named(name, text):
    """An exception of a class of that name."""
    return type(name, (Exception,), {})(text)


@pytest.mark.parametrize(
    "error",
    [
        named("ResourceExhaustedError", "Graph execution error: OOM when allocating tensor with shape[32,64]"),
        named("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB."),
        named("JaxRuntimeError", "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes."),
        named("InternalError", "CUDA runtime error: CUDA_ERROR_OUT_OF_MEMORY"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_where_memory_runs_out_the_batch_size_is_named(error):
    with pytest.raises(InputError, match="memory ran out: pass a smaller --batch-size"), memory_errors():
        raise error


def test_what_a_backend_raises_at_once_for_too_large_a_tensor_is_told_as_that():
    with pytest.raises(InputError, match="memory ran out"), memory_errors():
        keras.ops.zeros((2**20, 2**20, 2**6))


def test_other_errors_are_not_called_a_want_of_memory():
    with pytest.raises(ZeroDivisionError), memory_errors():
        raise ZeroDivisionError
    with pytest.raises(InputError, match=r"^memory\.png is missing$"), memory_errors():
        raise InputError("memory.png is missing")


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "float16"), ((8, 0), "bfloat16"), ((10, 0), "bfloat16")]
)
def test_an_older_gpu_computes_in_float16(monkeypatch, capability, precision):
    gpu = types.SimpleNamespace(compute_capability=".".join(map(str, capability)))
    config = types.SimpleNamespace(
        list_physical_devices=lambda kind: [gpu],
        experimental=types.SimpleNamespace(get_device_details=lambda device: {"compute_capability": capability}),
    )
    backends = {
        "tensorflow": types.SimpleNamespace(config=config),
        "jax": types.SimpleNamespace(devices=lambda: [gpu]),
        "torch": types.SimpleNamespace(cuda=types.SimpleNamespace(get_device_capability=lambda: capability)),
    }
    for name, module in backends.items():
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(keras.backend, "backend", lambda name=name: name)
        assert devices.gpu_precision() == precision


def test_why_tensorflow_does_not_use_a_gpu_is_said_only_where_there_is_one(monkeypatch):
    log = (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        "I0000 00:00:1.2 3 port.cc:153] oneDNN custom operations are on.\n"
        "W0000 00:00:1.2 3 gpu_device.cc:2431] Cannot dlopen some GPU libraries. Skipping registering GPU devices...\n"
    )
    asked = []

    def run(command, **options):
        asked.append(options["env"]["TF_CPP_MIN_LOG_LEVEL"])
        return types.SimpleNamespace(stderr=log)

    monkeypatch.setattr(devices.subprocess, "run", run)
    monkeypatch.setattr(devices, "device", lambda: "cpu")
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    reason = devices.why_no_gpu.__wrapped__
    monkeypatch.setattr(devices, "nvidia_gpus", list)
    assert reason() is None
    monkeypatch.setattr(devices, "nvidia_gpus", lambda: ["/dev/nvidia0"])
    assert reason() == (
        "TensorFlow does not use the GPU of this machine: "
        "Cannot dlopen some GPU libraries. Skipping registering GPU devices..."
    )
    assert asked == ["0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert reason() is None
    assert asked == ["0"], "who hides it knows why"
