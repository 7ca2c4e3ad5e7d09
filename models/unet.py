"""The U-Net that segments the lesion: as published, or with an ImageNet backbone as its encoder.

Source: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015,
https://arxiv.org/abs/1505.04597, with the sizes of Ding et al. 2022 and convolutions that keep the size.
"""

import keras
from keras import layers

from models.backbones import BACKBONES, backbone_of_images, stage_ends
from models.fused_batch_norm import fuse_batch_normalization
from utils.errors import InputError


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
    batch_norm = {"batch_norm": batch_norm, "momentum": batch_norm_momentum}
    inputs = keras.Input((side, side, 3), name="image")
    x = layers.Rescaling(1 / 255)(inputs)
    skips = []
    for level in range(blocks - 1):
        x = two_convolutions(x, filters * 2**level, **batch_norm)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = two_convolutions(x, filters * 2 ** (blocks - 1), **batch_norm)
    for level in reversed(range(blocks - 1)):
        x = layers.Conv2DTranspose(filters * 2**level, 2, strides=2)(x)
        x = layers.Concatenate()([skips[level], x])
        x = two_convolutions(x, filters * 2**level, **batch_norm)
    outputs = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", name="lesion")(x)
    return fuse_batch_normalization(keras.Model(inputs, outputs, name="unet"))


def unet_with_encoder(encoder, side=192, filters=32, batch_norm_momentum=0.99, weights="imagenet"):
    """Build a U-Net whose encoder is an ImageNet backbone.

    The last feature map of each resolution of the backbone is a skip connection. The decoder starts from the coarsest
    map. At each resolution it resizes the map bilinearly to the size of the skip, concatenates the skip, and applies
    two 3x3 convolutions with batch normalisation.

    Args:
        encoder: a key of `BACKBONES`.
        side: length of the square input's sides in pixels.
        filters: filters of the decoder at half of the input's resolution; twice as many at each coarser one.
        batch_norm_momentum: momentum of the moving statistics of every batch normalisation.
        weights: initial weights of the encoder; see `models.backbones.classifier`.

    Returns:
        A `keras.Model` of the same input and output as `unet`. It contains the backbone's input scaling.

    Raises:
        InputError: if the image is too small for the backbone, or its weights are not available.
    """
    smallest = BACKBONES[encoder].smallest_image
    if side < smallest:
        raise InputError(f"unet_image_size = {side} is too small for {encoder}: take {smallest} pixels or more")
    images = keras.Input((side, side, 3), name="image")
    network = backbone_of_images(encoder, images, weights, batch_norm_momentum)
    *skips, x = (network.get_layer(name).output for name in stage_ends(network))
    for level, skip in reversed(list(enumerate(skips))):
        x = layers.Resizing(*skip.shape[1:3])(x)  # not always twice as large: some backbones do not pad
        x = layers.Concatenate()([skip, x])
        x = two_convolutions(x, filters * 2**level, batch_norm=True, momentum=batch_norm_momentum)
    # The order of a 1x1 convolution and a linear interpolation does not matter, and one channel is resized faster.
    x = layers.Conv2D(1, 1, dtype="float32")(x)
    x = layers.Resizing(side, side, dtype="float32")(x)
    outputs = layers.Activation("sigmoid", dtype="float32", name="lesion")(x)
    return fuse_batch_normalization(keras.Model(images, outputs, name="unet"))


def two_convolutions(x, filters, batch_norm, momentum):
    """Two 3x3 convolutions that keep the size, each followed by batch normalisation (optional) and a ReLU."""
    for _ in range(2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=not batch_norm, kernel_initializer="he_normal")(x)
        if batch_norm:
            x = layers.BatchNormalization(momentum=momentum)(x)
        x = layers.ReLU()(x)
    return x


@keras.saving.register_keras_serializable(package="melanoma")
def bce_dice(y_true, y_pred):
    """Binary cross-entropy plus soft Dice loss, each a mean over the pixels of one image.

    The Dice term gives a small lesion as much weight as a large one. Source: Milletari et al., "V-Net",
    2016, https://arxiv.org/abs/1606.04797, equation 3 with plain sums in the denominator.

    Args:
        y_true: masks (batch, height, width, 1), 0 to 1.
        y_pred: probabilities of the same shape.

    Returns:
        Losses (batch,).
    """
    cross_entropy = keras.ops.mean(keras.losses.binary_crossentropy(y_true, y_pred), axis=(1, 2))
    return cross_entropy + keras.losses.dice(y_true, y_pred, axis=(1, 2, 3))
