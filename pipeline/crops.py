"""The crop rule of the settings."""

from data.lesion import CropRule


def crop_rule(config):
    """The `data.lesion.CropRule` of some settings."""
    return CropRule(
        size=config.image_size,
        margin_px=config.crop_margin_px,
        margin_ratio=config.crop_margin_ratio,
        square=config.crop_square,
        border=config.crop_border,
    )
