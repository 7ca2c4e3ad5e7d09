"""Copy and set the values of Keras variables, to train a network again or to resume its training."""

import keras
import numpy as np


def copy_values(variables):
    """Copies of the values of Keras variables, as a list of NumPy arrays."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def set_values(variables, values):
    """Give Keras variables their values, an iterable of arrays in the same order.

    Raises:
        ValueError: if there are not as many values as variables, or one has another shape.
    """
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
