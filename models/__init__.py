"""Networks and layers. Importing this package registers them, so that `keras.saving.load_model` finds them."""

from utils.quiet_keras import keras  # before anything else imports Keras

# isort: split
from models.backbones import classifier
from models.locally_connected import LocallyConnected1D
from models.squeeze_excitation import SqueezeExcitation
from models.unet import bce_dice, unet
from models.vote import vote_network

__all__ = ["LocallyConnected1D", "SqueezeExcitation", "bce_dice", "classifier", "unet", "vote_network"]

# Networks here use channels last, and float32 weights and losses. So the user's keras.json is overridden. (The setting
# `mixed_precision` is the precision of the arithmetic.)
keras.config.set_image_data_format("channels_last")
keras.config.set_floatx("float32")
keras.config.set_epsilon(1e-7)
