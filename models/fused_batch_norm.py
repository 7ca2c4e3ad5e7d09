"""Batch normalisation as one TensorFlow operation on a CPU, where Keras computes it in several steps."""

from types import MethodType

import keras
from keras import ops


def fuse_batch_normalization(network):
    """Make a network's batch normalisations use TensorFlow's fused operation, with TensorFlow on a CPU.

    Keras computes the moments and the normalised map one after the other, in float32, each with a pass over memory. The
    fused operation does it at once, in bfloat16 too (its statistics stay float32), and in prediction TensorFlow's graph
    optimiser folds it into the convolution before it. On a GPU, and with JAX, XLA does the same by itself.

    The layers stay Keras's own: only the method `call` of these objects is replaced. So a saved network does not
    depend on this module. With another backend or a GPU nothing changes.

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
        # The operation returns the variance of the population, estimated with n - 1; Keras keeps that of the batch.
        pixels = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), variance.dtype)
        variance = variance * (pixels - 1) / pixels
        for moving, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            moving.assign(moving * layer.momentum + batch * (1 - layer.momentum))
    return ops.cast(outputs, layer.compute_dtype)
