"""Loss and metric of the classifiers."""

import keras
from keras import ops

TINY = 1e-30  # the least probability whose logarithm is taken; below it (logits 69 apart) there is no gradient


class PriorCorrected(keras.Model):
    """A classifier that keeps the true class frequencies although training images are drawn with other frequencies.

    In training, the probability of each class is multiplied by `prior_ratio`: the frequency with which the class is
    drawn, divided by its true frequency. The loss compares the product, divided by its sum, with the labels. So the
    product fits the drawn images, and the network's own output fits the true frequencies (without label smoothing).
    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, https://arxiv.org/abs/2007.07314,
    equation 10.

    In validation, images have their true frequencies. The loss is the plain cross-entropy plus penalties, without label
    smoothing. `compute_loss` computes it and ignores the compiled loss, so change both to use another loss.

    Build it from a network's input and output like a `keras.Model`, and compile it with a loss of logits. To
    save it, make a plain `keras.Model` of its input and output.
    """

    def __init__(self, inputs, outputs, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        # A variable, because it differs between folds, and a compiled training step would keep the value of a constant.
        self.prior_ratio = self.add_weight(
            name="prior_ratio", shape=outputs.shape[-1:], initializer="ones", dtype="float32", trainable=False
        )

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if training:
            # Logits: a loss of probabilities clips them, so a confident error would have no gradient.
            drawn = ops.log(ops.maximum(y_pred, TINY)) + ops.log(ops.maximum(self.prior_ratio, TINY))
            return super().compute_loss(x, y, drawn, sample_weight, training)
        return ops.mean(keras.losses.categorical_crossentropy(y, y_pred)) + sum(map(ops.sum, self.losses))


class MeanAUC(keras.metrics.AUC):
    """Mean area under the ROC curve (AUC) of the tasks. Each task is one class against the rest.

    The AUC of a task is not defined without images of its class, or without others. Keras counts it as 0 then; here it
    is left out of the mean. The mean is NaN if no AUC is defined.

    Args:
        tasks: number of tasks; they are the first of the classes.
        classes: number of classes, the columns of the probabilities.
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
