"""The U-Net that segments the lesion.

Source: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015,
https://arxiv.org/abs/1505.04597, with the sizes of Ding et al. 2022 and convolutions that keep the size.
"""

import keras
from keras import layers

from models.fused_batch_norm import fuse_batch_normalization


def unet(side=224, blocks=5, filters=32, batch_norm=False, batch_norm_momentum=0.99):
    """Build a U-Net.

    Args:
        side: length of the square input's sides in pixels, a multiple of 2 to the power `blocks` - 1.
        blocks: resolutions of the encoder, two 3x3 convolutions each.
        filters: filters of the first block; each further block has twice as many.
        batch_norm: batch normalisation between each convolution and its ReLU.
        batch_norm_momentum: momentum of its moving statistics.

    Returns:
        A `keras.Model`. Input: RGB images (batch, side, side, 3), 0 to 255. Output: probability of lesion
        (batch, side, side, 1), float32.
    """

    def two_convolutions(x, filters):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=not batch_norm, kernel_initializer="he_normal")(x)
            if batch_norm:
                x = layers.BatchNormalization(momentum=batch_norm_momentum)(x)
            x = layers.ReLU()(x)
        return x

    inputs = keras.Input((side, side, 3), name="image")
    x = layers.Rescaling(1 / 255)(inputs)
    skips = []
    for level in range(blocks - 1):
        x = two_convolutions(x, filters * 2**level)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = two_convolutions(x, filters * 2 ** (blocks - 1))
    for level in reversed(range(blocks - 1)):
        x = layers.Conv2DTranspose(filters * 2**level, 2, strides=2)(x)
        x = layers.Concatenate()([skips[level], x])
        x = two_convolutions(x, filters * 2**level)
    outputs = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", name="lesion")(x)
    return fuse_batch_normalization(keras.Model(inputs, outputs, name="unet"))


@keras.saving.register_keras_serializable(package="melanoma")
def bce_dice(y_true, y_pred):
    """Binary cross-entropy plus soft Dice loss, each a mean over the pixels of one image.

    The Dice term weighs lesion and background alike however small the lesion is. Source: Milletari et al., "V-Net",
    2016, https://arxiv.org/abs/1606.04797, equation 3 with plain sums in the denominator.

    Args:
        y_true: masks (batch, height, width, 1), 0 to 1.
        y_pred: probabilities of the same shape.

    Returns:
        Losses (batch,).
    """
    cross_entropy = keras.ops.mean(keras.losses.binary_crossentropy(y_true, y_pred), axis=(1, 2))
    return cross_entropy + keras.losses.dice(y_true, y_pred, axis=(1, 2, 3))
