"""Test-time augmentation."""

import keras
from keras import ops


def over_flips_and_turns(network):
    """Average a network's predictions over the eight flips and quarter turns of its square input.

    A map is turned back before the mean, so that it turns with the image. Class probabilities do not depend on how the
    image is turned.

    Args:
        network: a `keras.Model` of square images (batch, side, side, channels) that gives maps (batch, side, side,
            channels) or vectors (batch, classes).

    Returns:
        A `keras.Model` of the same input and output. A step takes eight times the work and memory.
    """

    def turned(x, quarters, flip):
        x = ops.flip(x, axis=2) if flip else x
        return ops.rot90(x, quarters, axes=(1, 2))

    def turned_back(x, quarters, flip):
        x = ops.rot90(x, -quarters, axes=(1, 2))
        return ops.flip(x, axis=2) if flip else x

    images = keras.Input(network.input_shape[1:])
    ways = [(quarters, flip) for quarters in range(4) for flip in (False, True)]
    # One call on eight concatenated batches: eight calls would make a graph eight times as large and slow to compile.
    outputs = network(ops.concatenate([turned(images, *way) for way in ways]))
    outputs = ops.split(outputs, len(ways))
    if len(network.output_shape) == 4:
        outputs = [turned_back(output, *way) for output, way in zip(outputs, ways, strict=True)]
    return keras.Model(images, ops.mean(ops.stack(outputs), axis=0), name=f"{network.name}_over_flips_and_turns")
