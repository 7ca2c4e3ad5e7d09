"""How classifiers are trained and validated: loss and metric."""

import keras
from keras import ops


class PriorCorrected(keras.Model):
    """A classifier trained on images that are drawn by class, whose probabilities keep the classes' true prior.

    In training, its probabilities are multiplied by how much more often each class is drawn than it occurs, and brought
    back to a sum of 1, before the loss compares them with the labels. What fits the drawn images then is the product,
    so the network itself is left with the probabilities under the true prior. Source: Menon et al., "Long-tail learning
    via logit adjustment", ICLR 2021, https://arxiv.org/abs/2007.07314, equation 10.

    The images of validation are not drawn: its loss is the plain cross-entropy plus penalties, without label smoothing.
    `compute_loss` computes it and ignores the compiled loss there, so another loss has to be put into both places.

    It is made of a network's input and output as `keras.Model` is, and compiled with a loss of probabilities. To be
    saved, make a plain `keras.Model` of input and output again.
    """

    def __init__(self, inputs, outputs, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        # For each class, its share of the drawn images over its share of the true ones. It is a variable because folds
        # differ in it, and a compiled training step would keep a constant.
        self.prior_ratio = self.add_weight(
            name="prior_ratio", shape=outputs.shape[-1:], initializer="ones", dtype="float32", trainable=False
        )

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if training:
            drawn = y_pred * ops.convert_to_tensor(self.prior_ratio)
            drawn = drawn / ops.sum(drawn, axis=-1, keepdims=True)
            return super().compute_loss(x, y, drawn, sample_weight, training)
        return ops.mean(keras.losses.categorical_crossentropy(y, y_pred)) + sum(map(ops.sum, self.losses))


class MeanAUC(keras.metrics.AUC):
    """Mean area under the ROC curve of the first tasks, one class against the rest each; NaN if none is defined.

    An area needs images of its class and others. Keras counts one that is not defined as 0; here it is left out.

    Args:
        tasks: how many of the classes are tasks.
        classes: columns of the probabilities.
        thresholds: see `num_thresholds` of `keras.metrics.AUC`; the curve is interpolated linearly between them.
        name: of the metric.
    """

    def __init__(self, tasks, classes, thresholds=1000, name="auc"):
        super().__init__(thresholds, multi_label=True, num_labels=classes, name=name)
        self.tasks = tasks

    def result(self):
        positives = self.true_positives + self.false_negatives  # (thresholds, classes)
        negatives = self.false_positives + self.true_negatives
        hits, false_alarms = self.true_positives / positives, self.false_positives / negatives  # 0 / 0 is NaN
        areas = ops.sum((false_alarms[:-1] - false_alarms[1:]) * (hits[:-1] + hits[1:]) / 2, axis=0)[: self.tasks]
        undefined = ops.isnan(areas)
        return ops.sum(ops.where(undefined, 0.0, areas)) / ops.sum(1.0 - ops.cast(undefined, areas.dtype))
