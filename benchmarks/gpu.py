"""How fast one classifier trains on a GPU, how long it waits for its data, and how much memory it takes.

    python benchmarks/gpu.py --preset fine_tuned --run-dir runs/fine_tuned --backbone-name xception --in-memory

Trains the network from its first weights on the crops of a run, batch after batch as training.py does, then for as many
epochs on one batch that is held in memory; nothing that the run has made is changed. Images a second are those of whole
epochs, without validation and checkpoints, after two epochs to warm up. Processes of this script that are started
together are compiled side by side, wait until all are, and measure in turn.

Reads   <run-dir>/crops/{training,validation,extra}/<id>.png and the labels, as training.py does

Writes  <run-dir>/results/speed_<backbone>_<backend>.json
        <run-dir>/speed.lock    empty; by it they wait for each other
"""

import fcntl
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pipeline import command_line, inputs

EPOCHS = {"warm-up": 2, "measured": 5}


def main(config):
    from data.files import whole_file

    with open(config.run_dir / "speed.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # before Keras is loaded, so that whoever starts now has it too
        found = measure(config, lambda: fcntl.flock(lock, fcntl.LOCK_EX))
    text = json.dumps(found, indent=2)
    backend = found["computed_with"].split()[0]
    with whole_file(config.run_dir / "results" / f"speed_{config.backbone_name}_{backend}.json") as part:
        part.write_text(text + "\n")
    print(text)


def measure(config, wait):
    """Figures of one training; `wait` is called once it is warm and returns when it is its turn."""
    import keras

    import training
    from pipeline.devices import computed_with

    labels, crops = {}, {}
    for split in ("training", "validation", *inputs.extra_split(config)):
        images, _ = inputs.images(config, split)
        labels[split] = inputs.labels(config, split, images, required=True)
        crops[split] = inputs.crop_paths(config, split, images)
    network, _ = next(training.untrained_networks(config))
    drawn = training.make_batches(config, crops, labels)["training"]

    class Held(keras.utils.PyDataset):
        batch = drawn[0]

        def __len__(self):
            return len(drawn)

        def __getitem__(self, index):
            return self.batch

    images_a_second(network, drawn, drawn, EPOCHS["warm-up"])
    wait()
    trained, ready = (images_a_second(network, batches, drawn, EPOCHS["measured"]) for batches in (drawn, Held()))
    return {
        "computed_with": computed_with(network),
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "workers": config.workers,
        "images_a_second": round(trained),
        "images_a_second_of_a_batch_held_ready": round(ready),
        "share_waiting_for_data": round(max(0.0, 1 - trained / ready), 3),
        "peak_memory_gb": peak_memory(),
    }


def images_a_second(network, batches, drawn, epochs):
    """Median over some epochs of a training on `batches`, which are as many as those of `drawn`."""
    import keras
    import numpy as np

    speeds = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            drawn.epoch = epoch
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):  # Keras has read the losses, so the last step is done
            speeds.append(drawn.per_epoch / (time.perf_counter() - self.start))

    # At its end, fit leaves weights and their moving averages in the same arrays, which JAX does not take again.
    for variable in network.trainable_variables:
        variable.assign(keras.ops.convert_to_numpy(variable))
    network.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=[Clock()])
    return float(np.median(speeds))


def peak_memory():
    """Most memory that this process has had on the GPU so far, in GB; None where the backend does not tell."""
    import keras

    peak = None
    if keras.backend.backend() == "jax":
        import jax

        peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    elif keras.backend.backend() == "torch":
        import torch

        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return peak and round(peak / 1e9, 2)


if __name__ == "__main__":
    command_line.run(main, command_line.start(__doc__))
