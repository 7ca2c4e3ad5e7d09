"""The network that votes over the classifiers' probabilities."""

import keras
from keras import layers

from models.locally_connected import LocallyConnected1D


def vote_network(voters=5, classes=3, filters=20):
    """Build the voting network of Ding et al. 2022: 423 parameters for five voters and three classes.

    Each class weighs its voters with weights of its own. The last activation is a sigmoid and a softmax follows it, so
    with three classes every output lies between 1 / (1 + 2e) = 0.155 and e / (e + 2) = 0.576.

    Args:
        voters: classifiers that vote.
        classes: classes they tell apart.
        filters: filters of the first locally connected layer.

    Returns:
        A `keras.Model`. Input: probabilities (batch, classes, voters). Output: probabilities (batch, classes).
    """
    inputs = keras.Input((classes, voters), name="probabilities")
    x = LocallyConnected1D(filters, 1, activation="relu")(inputs)
    x = LocallyConnected1D(1, 1, activation="sigmoid")(x)
    outputs = layers.Softmax()(layers.Flatten()(x))
    return keras.Model(inputs, outputs, name="vote")


def ensemble(networks):
    """Join trained classifiers into one network.

    Args:
        networks: classifiers of crops of one size, in the order of the voting network's channels.

    Returns:
        A `keras.Model`. Input: RGB crops (batch, side, side, 3), 0 to 255. Output: the classifiers' probabilities
        (batch, classes, voters).
    """
    crops = keras.Input(networks[0].input_shape[1:], name="crop")
    # Some saved networks come back with lists of one input and one output.
    plain = [keras.Model(network.inputs[0], network.outputs[0], name=network.name) for network in networks]
    predictions = keras.ops.stack([network(crops) for network in plain], axis=-1)
    return keras.Model(crops, predictions, name="ensemble")
