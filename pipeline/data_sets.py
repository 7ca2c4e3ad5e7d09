"""The data sets of a run: one with the three splits, and one with further training images."""

from functools import lru_cache
from pathlib import Path

from data.dataset import MADE_SPLIT, TABLE, FurtherImages, open_data_set
from data.own_images import standing
from pipeline.paths import RunFolder
from utils.files import atomic_write


def data_set(config, split=None):
    """The data set that a split belongs to; see `data.dataset`.

    It is opened once, and again if its table has changed. The further images, split "extra", are opened at each call.

    Raises:
        InputError: if it has a fault.
    """
    source = opened(config.data_dir, config.seed, table_stamp(config.data_dir))
    return FurtherImages(config.extra_data_dir, source.classes, config.extra_labels) if split == "extra" else source


@lru_cache(maxsize=2)
def opened(folder, seed, stamp):
    """Open a data set, once for each state of its table."""
    return open_data_set(folder, seed)


def table_stamp(folder):
    """Path, size and modification time of dataset.csv and dataset_split.csv, those of them that exist."""
    files = [standing(folder, TABLE).resolve(), (Path(folder) / MADE_SPLIT).resolve()]
    stats = {file: file.stat() for file in files if file.is_file()}
    return tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats.items())


def label_files(config, split):
    """The file of a split's labels, as a list; empty if it has none.

    If one table holds all splits, the file is a copy of the split's labels in the run folder. So other changes of the
    table make no output outdated.
    """
    table = data_set(config, split).label_table(split)
    if not isinstance(table, str):
        return [table] if table and table.exists() else []
    file, content = RunFolder(config.run_dir).labels(split), table.encode(errors="surrogateescape")
    if not file.exists() or file.read_bytes() != content:
        with atomic_write(file) as part:
            part.write_bytes(content)
    return [file]
