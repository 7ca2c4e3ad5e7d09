"""Further labelled images, for training alone: the data sets whose layout is known, each told by its table."""

from data import ham10000
from data.errors import InputError

DATA_SETS = (ham10000,)


def data_set(folder):
    """The module that reads a folder of further images: with `table`, `image_paths` and `read_labels`.

    Raises:
        InputError: if the folder holds the table of none.
    """
    for known in DATA_SETS:
        if known.table(folder).is_file():
            return known
    tables = " or ".join(known.table(folder).name for known in DATA_SETS)
    raise InputError(f"{folder} holds no {tables}: point --extra-data-dir at a data set in its official layout")
