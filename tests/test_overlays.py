import cv2
import numpy as np

from data.lesion import ImageView
from evaluation.overlays import heat_map, outlined


def test_pictures_mark_the_mask_the_box_and_the_heat():
    mask = np.zeros((100, 200), np.uint8)
    mask[40:60, 80:120] = 255
    mask = cv2.resize(mask, (400, 200), interpolation=cv2.INTER_NEAREST)
    view = ImageView(np.zeros((200, 400, 3), np.uint8), 2, mask, (20, 80, 60, 140), None)
    picture = outlined(view)
    assert picture[40, 200].tolist() == [255, 230, 0]  # the upper edge of the box, twice as far down
    assert picture[80, 200].tolist() == [0, 255, 255]  # that of the mask
    assert picture[100, 200].tolist() == [0, 0, 0]
    cold, hot = heat_map(np.zeros((1, 2, 3), np.uint8), np.array([[0.0, 1.0]]))[0].astype(int)
    assert cold[2] > cold[0]
    assert hot[0] > 2 * hot[2]
