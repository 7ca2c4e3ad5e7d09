"""Grad-CAM: where in a crop a classifier sees its class."""

import keras
import numpy as np

from data.images import resize


def grad_cam(network, images, classes):
    """Map how much each place of a crop supports a class.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, https://arxiv.org/abs/1610.02391, equations 1 and 2. Only the
    global average pooling and two dense layers, the first with a ReLU, lie between the last feature map and the score
    (logit) of a class. So the gradient of the score is the same everywhere on the map, and a product of the kernels. No
    automatic differentiation is needed, for which Keras has no interface common to all backends.

    Args:
        network: a classifier as `models.backbones.classifier` builds it.
        images: crops (images, side, side, 3), RGB, 0 to 255, of the network's size.
        classes: index of the class to explain, for each image.

    Returns:
        Array (images, side, side), float32, 0 to 1; all 0 if nothing supports the class. Each map is divided by its
        maximum, so maps are comparable in place but not in strength.
    """
    pool, hidden, diagnosis = (network.get_layer(name) for name in ("pool", "hidden", "diagnosis"))
    inner = keras.Model(network.inputs[0], [pool.input, hidden.output])
    # One by one and not compiled: for a few images `predict` would take longer to build its graph. Arrays, because a
    # tensor of PyTorch keeps all feature maps for a gradient.
    outputs = [
        [keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")) for x in inner(image[None], training=False)]
        for image in np.asarray(images)
    ]
    features, activations = (np.concatenate(arrays) for arrays in zip(*outputs, strict=True))
    to_hidden, to_score = (keras.ops.convert_to_numpy(layer.kernel) for layer in (hidden, diagnosis))
    # The paper's 1 / (height x width) would cancel in the division by the maximum.
    gradients = ((activations > 0) * to_score[:, classes].T) @ to_hidden.T
    maps = np.maximum(np.einsum("nhwc,nc->nhw", features, gradients), 0)
    maps = np.stack([resize(image_map, *network.input_shape[1:3]) for image_map in maps])
    peaks = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, peaks, out=np.zeros_like(maps), where=peaks > 0)
