"""Networks and layers. Importing this package registers them, so that `keras.saving.load_model` finds them."""

from models.backbones import classifier
from models.locally_connected import LocallyConnected1D
from models.squeeze_excitation import SqueezeExcitation
from models.unet import bce_dice, unet
from models.vote import vote_network

__all__ = ["LocallyConnected1D", "SqueezeExcitation", "bce_dice", "classifier", "unet", "vote_network"]
