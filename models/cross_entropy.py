"""The loss of classifiers that see the classes in other shares than the world has them."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="melanoma")
class PriorCorrectedCrossentropy(keras.losses.CategoricalCrossentropy):
    """Cross-entropy of images drawn by class, for a network whose probabilities keep the classes' true prior.

    The network's probabilities are multiplied by how much more often each class is drawn than it occurs, and brought
    back to a sum of 1, before they are held against the labels. What fits the drawn images then is the product, so the
    network itself is left with the probabilities under the true prior: nothing has to be put back afterwards. Source:
    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, https://arxiv.org/abs/2007.07314, equation 10.

    Args:
        drawn_over_true: for each class, its share of the drawn images over its share of the true ones.
        label_smoothing: see `keras.losses.CategoricalCrossentropy`.
    """

    def __init__(self, drawn_over_true, label_smoothing=0.0, name="prior_corrected_crossentropy", **kwargs):
        super().__init__(label_smoothing=label_smoothing, name=name, **kwargs)
        self.drawn_over_true = [float(ratio) for ratio in drawn_over_true]

    def call(self, y_true, y_pred):
        drawn = y_pred * ops.convert_to_tensor(self.drawn_over_true, y_pred.dtype)
        return super().call(y_true, drawn / ops.sum(drawn, axis=-1, keepdims=True))

    def get_config(self):
        own = {"drawn_over_true": self.drawn_over_true, "label_smoothing": self._fn_kwargs["label_smoothing"]}
        return {"name": self.name, "reduction": self.reduction, **own}
