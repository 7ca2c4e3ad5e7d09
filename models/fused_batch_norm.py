"""Batch normalisation as one TensorFlow operation on a CPU. Keras computes it in several steps."""

from types import MethodType

import keras
from keras import ops


def fuse_batch_normalization(network):
    """Use TensorFlow's fused operation for a network's batch normalisations, if TensorFlow runs on a CPU.

    Keras computes the moments and the normalised map in separate passes over memory, in float32. The fused operation
    needs one pass, also in bfloat16 (its statistics stay float32), and for prediction TensorFlow merges it with the
    convolution before it. On a GPU, and with JAX, XLA fuses the steps by itself, so nothing is changed there.

    Only the method `call` of the layer objects is replaced. They are still Keras's layers, so a saved network does not
    depend on this module.

    Args:
        network: a `keras.Model`.

    Returns:
        The same network.
    """
    if keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu"):
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.call = MethodType(fused_call, layer)
    return network


def fused_call(layer, inputs, training=None, mask=None):
    """Replace `keras.layers.BatchNormalization.call` for feature maps (batch, height, width, channels)."""
    import tensorflow as tf

    fusible = len(inputs.shape) == 4 and layer.axis in (-1, 3) and mask is None and not layer.renorm
    if not fusible or keras.backend.standardize_dtype(inputs.dtype) == "float64":
        return type(layer).call(layer, inputs, training=training, mask=mask)
    channels = (inputs.shape[-1],)
    use_batch = bool(training and layer.trainable)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=layer.gamma if layer.scale else tf.ones(channels),
        offset=layer.beta if layer.center else tf.zeros(channels),
        mean=tf.constant([]) if use_batch else layer.moving_mean,
        variance=tf.constant([]) if use_batch else layer.moving_variance,
        epsilon=layer.epsilon,
        is_training=use_batch,
    )
    if use_batch:
        # The operation returns the variance with the divisor n - 1; Keras uses the divisor n.
        pixels = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), variance.dtype)
        variance = variance * (pixels - 1) / pixels
        for moving, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            moving.assign(moving * layer.momentum + batch * (1 - layer.momentum))
    return ops.cast(outputs, layer.compute_dtype)
