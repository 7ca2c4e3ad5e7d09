"""Training and prediction speed of each network against plain Keras in float32 and against PyTorch, on arrays.

    pip install -r benchmarks/requirements.txt
    python benchmarks/speed.py
    python benchmarks/speed.py --networks resnet50 unet --repetitions 3 --torch-python ~/torch/bin/python

Prints two Markdown tables of images per second: the median over repetitions and, in brackets, the range of the ratio.
It measures steps on one batch of noise in memory, with random weights: 32 images of 160 pixels for the classifiers, 16
of 128 pixels for the U-Net of `isic2017_256`. These three implementations run one after another, each in its own
process:

    plain     Keras's layers in float32
    ours      as in the stages: precision "auto", fused batch normalisation, glibc that keeps freed memory
    pytorch   PyTorch with the timm network of the same name, channels last, autocast to bfloat16, in eager mode

"First step" is the time from the start of a process to the end of its first training step, imports included. PyTorch
and timm may be in another environment (`--torch-python`). This takes about 25 minutes on two cores; run nothing else.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

SIDES = ("plain", "ours", "pytorch")
NETWORKS = ("resnet50", "densenet169", "inception_v3", "inception_resnet_v2", "xception", "unet")
TIMM_NAMES = {"xception": "legacy_xception"}  # where timm uses another name
STEPS = 4
START = time.perf_counter()


@dataclass
class Arguments:
    networks: tuple[str, ...] = NETWORKS
    """Networks to measure."""
    repetitions: int = 2
    """Processes for each network, with ours and with PyTorch; the plain side always has one."""
    torch_python: Path = Path(sys.executable)
    """Interpreter of an environment with PyTorch and timm."""


def main(arguments):
    results = {}
    for network in arguments.networks:
        for repetition in range(arguments.repetitions):
            for side in SIDES[1 if repetition else 0 :]:
                python = arguments.torch_python if side == "pytorch" else sys.executable
                command = [str(python), __file__, "measure", side, network]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                result = json.loads(output.splitlines()[-1])
                print(network, side, result, file=sys.stderr, flush=True)
                results.setdefault((network, side), []).append(result)
    for work in ("training", "prediction"):
        print(f"\n| {work}, images/s | plain | ours | PyTorch | ours / plain | ours / PyTorch |", end="")
        print(" first step: plain, ours, PyTorch |" if work == "training" else "")
        print("| --- | ---: | ---: | ---: | ---: | ---: |" + (" ---: |" if work == "training" else ""))
        for network in arguments.networks:
            rates = {side: [result[work] for result in results[network, side]] for side in SIDES}
            cells = [network, *(f"{median(rates[side]):.1f}" for side in SIDES)]
            for side in ("plain", "pytorch"):
                ratios = [a / b for a, b in zip(rates["ours"], itertools.cycle(rates[side]))]
                cells.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
            if work == "training":
                first = [median(result["first_step"] for result in results[network, side]) for side in SIDES]
                cells.append(", ".join(f"{seconds:.0f} s" for seconds in first))
            print("|", " | ".join(cells), "|")


def measure(side, name):
    """Print JSON about one side and one network: images per second, and seconds to the end of the first step."""
    train, predict, images = (pytorch_steps if side == "pytorch" else keras_steps)(name, plain=side == "plain")
    train()
    result = {"first_step": time.perf_counter() - START}
    for work, step in (("training", train), ("prediction", predict)):
        step()
        seconds = []
        for _ in range(STEPS):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        result[work] = images / median(seconds)
    print(json.dumps(result))


def noise(name):
    """Images (batch, side, side, 3), uint8, and masks (batch, side, side, 1) or one-hot labels (batch, 3), float32."""
    import numpy as np

    rng = np.random.default_rng(0)
    count, side = (16, 128) if name == "unet" else (32, 160)
    images = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    if name == "unet":
        return images, rng.integers(0, 2, (count, side, side, 1)).astype(np.float32)
    return images, np.eye(3, dtype=np.float32)[rng.integers(0, 3, count)]


def keras_steps(name, plain):
    """Functions that train and predict one batch with Keras, and the number of its images."""
    from dataclasses import replace

    from config import PRESETS
    from pipeline.allocator import keep_freed_memory

    if not plain:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        keep_freed_memory()
    import keras

    import seg_train
    import training
    from pipeline.devices import set_devices_and_precision

    precision = "float32" if plain else "auto"
    config = replace(PRESETS["isic2017_256"], image_size=160, weights="none", mixed_precision=precision)
    set_devices_and_precision(config)
    if name == "unet":
        network = seg_train.compiled_unet(config)
    else:
        network = training.build_classifier(replace(config, backbone_name=name))
        network = training.PriorCorrected(network.input, network.output, name=network.name)
        training.compile_network(network, config)
    if plain:
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                vars(layer).pop("call", None)  # undoes `fuse_batch_normalization`
    else:
        network.optimizer.build(network.trainable_variables)  # as `pipeline.fitting.fit` does
    images, targets = noise(name)
    return lambda: network.train_on_batch(images, targets), lambda: network.predict_on_batch(images), len(images)


def pytorch_steps(name, plain):
    """Functions that train and predict one batch with PyTorch, and the number of its images."""
    import timm
    import torch

    images, targets = (
        torch.from_numpy(array.transpose(0, 3, 1, 2).copy() if array.ndim == 4 else array) for array in noise(name)
    )
    network = pytorch_unet() if name == "unet" else timm.create_model(TIMM_NAMES.get(name, name), num_classes=3)
    network = network.to(memory_format=torch.channels_last)
    images = (images / 255).contiguous(memory_format=torch.channels_last)
    loss = torch.nn.functional.binary_cross_entropy_with_logits if name == "unet" else torch.nn.functional.cross_entropy
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)

    def train():
        network.train()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(images)
        loss(outputs.float(), targets).backward()
        optimizer.step()

    @torch.inference_mode()
    def predict():
        network.eval()
        with torch.autocast("cpu", torch.bfloat16):
            return network(images).float().numpy()

    return train, predict, len(images)


def pytorch_unet(filters=16, blocks=5):
    """The U-Net of `isic2017_256` in PyTorch."""
    import torch
    from torch import nn

    def two_convolutions(before, after):
        parts = []
        for channels in (before, after):
            parts += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(True)]
        return nn.Sequential(*parts)

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [filters * 2**level for level in range(blocks)]
            self.down = nn.ModuleList(map(two_convolutions, [3, *widths], widths))
            self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in widths[:-1])
            self.join = nn.ModuleList(two_convolutions(2 * width, width) for width in widths[:-1])
            self.lesion = nn.Conv2d(filters, 1, 1)

        def forward(self, x):
            skips = []
            for block in self.down:
                x = block(nn.functional.max_pool2d(x, 2) if skips else x)
                skips.append(x)
            for level in reversed(range(blocks - 1)):
                x = self.join[level](torch.cat([skips[level], self.up[level](x)], 1))
            return self.lesion(x)

    return UNet()


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(*sys.argv[2:])
    else:
        import tyro

        main(tyro.cli(Arguments, description=__doc__))
