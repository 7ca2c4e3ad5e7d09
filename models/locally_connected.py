"""The locally connected layer, which Keras 3 no longer has."""

import keras
from keras import activations, layers, ops


@keras.saving.register_keras_serializable(package="melanoma")
class LocallyConnected1D(layers.Layer):
    """A 1D convolution that does not share its weights: every output position has its own kernel.

    Weights have the shapes of `LocallyConnected1D` in Keras 2 (`implementation=1`) and can be copied from it.

    Args:
        filters: channels of the output.
        kernel_size: steps that an output position sees.
        strides: steps between output positions.
        padding: only "valid".
        activation: name or function; None for none.
        use_bias: whether every output position and filter has a bias.
        kernel_initializer, bias_initializer: initializers of the weights.

    Input shape:
        (batch, steps, channels).

    Output shape:
        (batch, (steps - kernel_size) // strides + 1, filters).

    Raises:
        ValueError: if padding is not "valid", a size is not positive, the input's shape is not known, or the input has
            fewer steps than the kernel.

    Example:
        >>> LocallyConnected1D(20, 1, activation="relu")(keras.ops.ones((2, 3, 5))).shape
        (2, 3, 20)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if padding != "valid":
            raise ValueError(f'padding must be "valid", not {padding!r}')
        if min(filters, kernel_size, strides) < 1:
            raise ValueError(f"filters, kernel_size and strides must be positive: {filters}, {kernel_size}, {strides}")
        self.filters, self.kernel_size, self.strides, self.padding = filters, kernel_size, strides, padding
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.input_spec = layers.InputSpec(ndim=3)

    def build(self, input_shape):
        _, steps, channels = input_shape
        if steps is None or channels is None:
            raise ValueError(f"the steps and channels of the input must be known, not {input_shape}")
        if steps < self.kernel_size:
            raise ValueError(f"the input has {steps} steps, fewer than the kernel's {self.kernel_size}")
        positions = self.compute_output_shape(input_shape)[1]
        self.kernel = self.add_weight(
            shape=(positions, self.kernel_size * channels, self.filters),
            initializer=self.kernel_initializer,
            name="kernel",
        )
        if self.use_bias:
            self.bias = self.add_weight(shape=(positions, self.filters), initializer=self.bias_initializer, name="bias")

    def call(self, inputs):
        positions, patch, _ = self.kernel.shape
        reach = (positions - 1) * self.strides + 1
        steps = [inputs[:, first : first + reach : self.strides] for first in range(self.kernel_size)]
        patches = ops.reshape(ops.stack(steps, axis=2), (-1, positions, patch))
        outputs = ops.einsum("bpi,pif->bpf", patches, self.kernel)
        if self.use_bias:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def compute_output_shape(self, input_shape):
        return input_shape[0], (input_shape[1] - self.kernel_size) // self.strides + 1, self.filters

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }
