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
