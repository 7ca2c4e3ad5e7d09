"""The network that votes over the classifiers' probabilities."""

import keras
from keras import layers

from models.locally_connected import LocallyConnected1D
from models.variables import copy_values, set_values


def vote_network(voters=5, classes=3, filters=20):
    """Build the voting network of Ding et al. 2022: 423 parameters for five voters and three classes.

    Each class has its own weights of the voters. The last activation is a sigmoid followed by a softmax. So with three
    classes every output lies between 1 / (1 + 2e) = 0.155 and e / (e + 2) = 0.576.

    Args:
        voters: number of classifiers that vote.
        classes: number of classes.
        filters: number of filters of the first locally connected layer.

    Returns:
        A `keras.Model`. Input: probabilities (batch, classes, voters). Output: probabilities (batch, classes).
    """
    inputs = keras.Input((classes, voters), name="probabilities")
    x = LocallyConnected1D(filters, 1, activation="relu")(inputs)
    x = LocallyConnected1D(1, 1, activation="sigmoid")(x)
    outputs = layers.Softmax()(layers.Flatten()(x))
    return keras.Model(inputs, outputs, name="vote")


def fit_vote(fit_on, monitor_on, predict, *, seeds, filters, learning_rate, batch_size, epochs):
    """Fit the voting network once from each of several seeds, and predict with each.

    Args:
        fit_on: pair of probabilities (images, classes, voters) and one-hot labels (images, classes).
        monitor_on: another such pair, for the validation loss by epoch.
        predict: dictionary from any name to probabilities (images, classes, voters) to predict.
        seeds: iterable of seeds, none negative.
        filters: see `vote_network`.
        learning_rate, batch_size, epochs: of Adam.

    Returns:
        The network of the first seed; its history; and for each seed a dictionary from the names of `predict` to
        probabilities (images, classes).
    """
    _, classes, voters = fit_on[0].shape
    network = vote_network(voters, classes, filters)
    network.compile(optimizer=keras.optimizers.Adam(learning_rate), loss="categorical_crossentropy")
    # The same network is fitted from every seed, because each new one would be compiled again.
    network.optimizer.build(network.trainable_variables)
    untrained = copy_values(network.optimizer.variables)
    options = {"batch_size": batch_size, "epochs": epochs, "verbose": 0}
    histories, weights, predicted = [], [], []
    for seed in seeds:
        keras.utils.set_random_seed(seed % 2**32)  # NumPy takes no larger seed
        network.set_weights(vote_network(voters, classes, filters).get_weights())
        set_values(network.optimizer.variables, untrained)
        histories.append(network.fit(*fit_on, validation_data=monitor_on, **options))
        weights.append(network.get_weights())
        predicted.append({name: network.predict(values, verbose=0) for name, values in predict.items()})
    network.set_weights(weights[0])
    return network, histories[0], predicted
