"""The five classifiers: an ImageNet backbone with squeeze-and-excitation blocks and a small dense head."""

import socket
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import keras
from keras import layers

from models.fused_batch_norm import fuse_batch_normalization
from models.squeeze_excitation import SqueezeExcitation
from utils.errors import DISK_ERRORS, InputError, refuse_locked
from utils.files import keras_home, lock


@dataclass(frozen=True)
class Backbone:
    """What `keras.applications` offers of one architecture."""

    build: Callable
    """Its constructor."""
    preprocess: Callable
    """The input scaling that its ImageNet weights were trained with; takes RGB values of 0 to 255."""
    smallest_image: int
    """Side in pixels of the smallest input it takes."""


BACKBONES = {
    "resnet50": Backbone(keras.applications.ResNet50, keras.applications.resnet.preprocess_input, 32),
    "densenet169": Backbone(keras.applications.DenseNet169, keras.applications.densenet.preprocess_input, 32),
    "inception_v3": Backbone(keras.applications.InceptionV3, keras.applications.inception_v3.preprocess_input, 75),
    "inception_resnet_v2": Backbone(
        keras.applications.InceptionResNetV2, keras.applications.inception_resnet_v2.preprocess_input, 75
    ),
    "xception": Backbone(keras.applications.Xception, keras.applications.xception.preprocess_input, 71),
}
# Names of the layers of the head that have weights.
HEAD_LAYERS = HIDDEN, DIAGNOSIS = "hidden", "diagnosis"
SILENCE = 60  # seconds without data after which a download fails
WEIGHT_FILE = "{}_weights_tf_dim_ordering_tf_kernels_notop.h5"


def classifier(
    backbone_name,
    image_size=224,
    classes=3,
    weights="imagenet",
    se_position="stages",
    se_ratio=16,
    head_units=128,
    head_l1=1e-4,
    head_dropout=0.0,
    batch_norm_momentum=0.99,
    se_lr_factor=1.0,
):
    """Build one of the five classifiers.

    Backbone, global average pooling, a dense ReLU layer with an L1 penalty, dropout, softmax.

    Args:
        backbone_name: a key of `BACKBONES`.
        image_size: side of the square input in pixels.
        classes: number of classes.
        weights: "imagenet", "none" for random weights, or a folder that holds Keras's own weight file.
        se_position: "stages", "top" or "none"; see `with_squeeze_excitation`.
        se_ratio: the bottleneck of a block has `channels // se_ratio` units.
        head_units: width of the hidden dense layer.
        head_l1: L1 penalty on the kernel of the hidden layer.
        head_dropout: share of the outputs of the hidden layer that is dropped in training.
        batch_norm_momentum: momentum of the moving statistics of every batch normalisation.
        se_lr_factor: see `SqueezeExcitation`.

    Returns:
        A `keras.Model`. Input: RGB crops (batch, image_size, image_size, 3), 0 to 255; the model contains the
        backbone's input scaling. Output: probabilities (batch, classes), float32.

    Raises:
        InputError: if the image is too small for the backbone, or its weights are not available.
    """
    smallest = BACKBONES[backbone_name].smallest_image
    if image_size < smallest:
        raise InputError(
            f"image_size = {image_size} is too small for {backbone_name}: make crops of {smallest} pixels or more"
        )
    crops = keras.Input((image_size, image_size, 3), name="crop")
    network = backbone_of_images(backbone_name, crops, weights, batch_norm_momentum)
    network = with_squeeze_excitation(network, se_position, se_ratio, se_lr_factor)
    x = layers.GlobalAveragePooling2D(name="pool")(network.output)
    x = layers.Dense(head_units, activation="relu", kernel_regularizer=keras.regularizers.L1(head_l1), name=HIDDEN)(x)
    x = layers.Dropout(head_dropout, name="dropout")(x)
    outputs = layers.Dense(classes, activation="softmax", dtype="float32", name=DIAGNOSIS)(x)
    # `inputs` of a keras.applications model is a list of one input.
    return fuse_batch_normalization(keras.Model(network.inputs[0], outputs, name=backbone_name))


def backbone_of_images(backbone_name, images, weights, batch_norm_momentum):
    """Build a backbone with its input scaling and without its top.

    Args:
        backbone_name: a key of `BACKBONES`.
        images: `keras.Input` of RGB images (batch, side, side, 3), 0 to 255.
        weights, batch_norm_momentum: see `classifier`.

    Returns:
        A `keras.Model` from the images to the last feature map.

    Raises:
        InputError: if the weights are not available.
    """
    network = load_backbone(backbone_name, BACKBONES[backbone_name].preprocess(images), weights)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = batch_norm_momentum
    return network


def load_backbone(backbone_name, scaled_images, weights):
    """Build a backbone without its top on a tensor of scaled images, with the given weights."""
    build = BACKBONES[backbone_name].build
    file = WEIGHT_FILE.format(backbone_name)
    if weights == "none":
        return build(include_top=False, input_tensor=scaled_images, weights=None)
    if weights != "imagenet":
        path = Path(weights) / file
        if not path.is_file():
            raise InputError(f"{path} is missing: --weights takes imagenet, none, or a folder that holds this file")
        try:
            return build(include_top=False, input_tensor=scaled_images, weights=str(path))
        except (OSError, ValueError, KeyError) as error:
            refuse_locked(path, error)
            raise InputError(f"{path} does not hold {backbone_name} weights ({error}): replace the file") from None
    with one_download_at_a_time(file):
        try:
            return build(include_top=False, input_tensor=scaled_images, weights="imagenet")
        except Exception as error:  # a failed download may raise any exception in Keras
            refuse_locked(keras_home() / "models" / file, error)
            known = any(text in str(error) for text in ("URL fetch failure", "Incomplete or corrupted file"))
            if not known and not isinstance(error, OSError | HTTPException):
                raise
            if getattr(error, "errno", None) in DISK_ERRORS:
                raise
            raise InputError(
                f"the ImageNet weights of {backbone_name} could not be downloaded ({error}): try again, pass "
                f"--weights FOLDER with {file} in it, or --weights none to train from random weights"
            ) from None


@contextmanager
def one_download_at_a_time(file):
    """Make other processes wait until a weight file is downloaded, because Keras writes it under its final name.

    A download fails if the server sends nothing for a minute. Otherwise Keras would wait without end.
    """
    path, before = keras_home() / "models" / f"{file}.lock", socket.getdefaulttimeout()
    with ExitStack() as stack:
        # A folder that is read-only or has no locks may still hold the weights.
        with suppress(InputError, OSError):
            held = lock(path)
            if held is None:
                print(f"waiting for another process that downloads {file}, or reads it")
                held = lock(path, timeout=-1)
            stack.callback(held.release)
        stack.callback(socket.setdefaulttimeout, before)
        socket.setdefaulttimeout(SILENCE)
        yield


def with_squeeze_excitation(network, position, ratio=16, lr_factor=1.0):
    """Insert squeeze-and-excitation blocks into a network, which keeps its layers and their weights.

    Args:
        network: a functional model of feature maps.
        position: "stages" for a block after the last feature map of each resolution, "top" for one after the final
            feature map, "none" for none.
        ratio, lr_factor: see `SqueezeExcitation`.

    Returns:
        A `keras.Model` that shares its layers with `network`.
    """
    if position == "none":
        return network
    names = {"stages": stage_ends(network), "top": [network.layers[-1].name]}[position]

    def call(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        if layer.name in names:
            outputs = SqueezeExcitation(ratio, lr_factor, name=f"{layer.name}_se")(outputs)
        return outputs

    return keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=call)


def stage_ends(network):
    """Name the layers whose output is the last feature map of its resolution.

    Only the layers of the trunk count: every path from the input to the output passes through them, so no branch of a
    block is one of them. A stage ends where the next map of the trunk is less than 3/4 as large. (A stride halves a
    map; an unpadded convolution only removes a pixel or two per side.)

    Args:
        network: a functional model with one input and one output.

    Returns:
        List of layer names from the input to the output.
    """
    users = Counter()
    nodes = [layer for layer in network.layers if not isinstance(layer, layers.InputLayer)]
    for layer in nodes:
        users.update(id(tensor) for tensor in keras.tree.flatten(layer.input))
    # Layers come in topological order: a layer is on the trunk if no later layer uses the output of one before it.
    trunk, waiting = [], set()
    for layer in nodes:
        users.subtract(id(tensor) for tensor in keras.tree.flatten(layer.input))
        waiting = {tensor for tensor in waiting if users[tensor]} | {id(layer.output)}
        if len(waiting) == 1 and not isinstance(layer, layers.ZeroPadding2D):
            trunk.append(layer)
    return [
        layer.name
        for layer, following in zip(trunk, [*trunk[1:], None], strict=True)
        if following is None or following.output.shape[1] < 0.75 * layer.output.shape[1]
    ]
