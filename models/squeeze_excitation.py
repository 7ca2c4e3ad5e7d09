"""The squeeze-and-excitation block."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="melanoma")
class SqueezeExcitation(layers.Layer):
    """Weigh the channels of a feature map by gates computed from their means.

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, https://arxiv.org/abs/1709.01507, equations 2 to 4.

    An untrained block is close to the identity, so that pretrained features keep their meaning: the last layer starts
    with a zero kernel and a bias of 4, so every gate is sigmoid(4) = 0.98.

    Args:
        ratio: the bottleneck has `channels // ratio` units, at least one.
        lr_factor: factor on the learning rate of the block. Its weights are stored divided by this factor, while the
            size of Adam's steps does not depend on the size of the weights. Source: Karras et al., "Progressive Growing
            of GANs", ICLR 2018, https://arxiv.org/abs/1710.10196, section 4.1.

    Input shape:
        (batch, height, width, channels).

    Output shape:
        The same.
    """

    def __init__(self, ratio=16, lr_factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.ratio, self.lr_factor = ratio, lr_factor

    def build(self, input_shape):
        channels = input_shape[-1]
        units = max(1, channels // self.ratio)
        self.reduce = layers.Dense(
            units,
            kernel_initializer=keras.initializers.VarianceScaling(self.lr_factor**-2, "fan_avg", "uniform"),
            dtype=self.dtype_policy,
            name="reduce",
        )
        self.expand = layers.Dense(
            channels,
            kernel_initializer="zeros",
            bias_initializer=keras.initializers.Constant(4 / self.lr_factor),
            dtype=self.dtype_policy,
            name="expand",
        )
        self.reduce.build((None, channels))
        self.expand.build((None, units))

    def gates(self, inputs):
        """The gates (batch, channels), 0 to 1, of a batch of feature maps."""
        squeezed = ops.relu(self.lr_factor * self.reduce(ops.mean(inputs, axis=(1, 2))))
        return ops.sigmoid(self.lr_factor * self.expand(squeezed))

    def call(self, inputs):
        return inputs * self.gates(inputs)[:, None, None, :]

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "ratio": self.ratio, "lr_factor": self.lr_factor}
