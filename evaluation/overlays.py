"""Draw masks, boxes and maps on RGB images."""

import cv2
import numpy as np

CYAN, YELLOW = (0, 255, 255), (255, 230, 0)


def outlined(view):
    """Draw the outline of an image's mask and its box.

    Args:
        view: a `data.lesion.ImageView`; without a mask there is no outline.

    Returns:
        RGB array (rows, columns, 3), uint8. The width of the lines is 1/200 of its longer side.
    """
    picture, width = view.image.copy(), max(1, round(max(view.image.shape) / 200))
    top, bottom, left, right = (round(edge * view.scale) for edge in view.box)
    cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), YELLOW, width)
    if view.mask is not None:
        outlines, _ = cv2.findContours(view.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, CYAN, width, cv2.LINE_AA)
    return picture


def heat_map(crop, heat):
    """Lay a map over a crop.

    Args:
        crop: RGB array (side, side, 3), uint8.
        heat: array (side, side), 0 to 1.

    Returns:
        RGB array (side, side, 3), uint8. The colours go from violet (the map is 0) through green to yellow (the map is
        1). The crop is made grey, because the brown of a lesion would change the colours.
    """
    colors = cv2.applyColorMap(np.round(255 * heat).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    grey = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.cvtColor(cv2.addWeighted(grey, 0.5, colors, 0.5, 0), cv2.COLOR_BGR2RGB)
