"""The data sets of a run: that of its three splits, and that of its further training images."""

from data.dataset import FurtherImages, open_data_set
from pipeline.paths import RunFolder
from utils.files import atomic_write


def data_set(config, split=None):
    """Open the data set that a split belongs to; see `data.dataset`. "extra" is that of the further images.

    Raises:
        InputError: if it has a fault.
    """
    data_set = open_data_set(config.data_dir, config.seed)
    return FurtherImages(config.extra_data_dir, data_set.classes, config.extra_labels) if split == "extra" else data_set


def label_files(config, split):
    """The file of a split's labels, as a list; empty if it has none.

    Where one table is of all splits, it is a copy of the split's labels in the run folder: what else changes in that
    table makes no output outdated.
    """
    table = data_set(config, split).label_table(split)
    if not isinstance(table, str):
        return [table] if table and table.exists() else []
    file, content = RunFolder(config.run_dir).labels(split), table.encode(errors="surrogateescape")
    if not file.exists() or file.read_bytes() != content:
        with atomic_write(file) as part:
            part.write_bytes(content)
    return [file]
