"""Progress of long work: a bar in a terminal, or lines in a log file. Also: wrap lines for a terminal."""

import sys
import textwrap

from tqdm import tqdm

SECONDS = 30  # between two lines in a log file
COLUMNS = 97  # per line; `pipeline.all_stages` may add the number of a network at its start


class Lines(tqdm):
    """tqdm that writes lines of text instead of overwriting one line."""

    def display(self, msg=None, pos=None):
        if msg is None:  # otherwise tqdm clears the line
            print(self, file=self.fp, flush=True)


def progress(iterable=None, desc=None, total=None, unit="image", **options):
    """Show progress, speed and remaining time on standard error.

    If standard error is no terminal, for example in a batch system, this prints a line every half minute, and none for
    shorter work.

    Args:
        iterable: the items, or None to call `update` yourself.
        desc: text at the start of the line.
        total: number of items.
        unit: name of an item.
        options: further options of `tqdm.tqdm`.

    Returns:
        A `tqdm.tqdm` of the iterable.
    """
    if sys.stderr.isatty():
        return tqdm(iterable, desc, total, unit=unit, **options)
    options |= {"mininterval": SECONDS, "delay": SECONDS, "miniters": 1, "ncols": 0, "leave": False}
    return Lines(iterable, desc, total, unit=unit, **options)


def numbered(items, what, unit="item"):
    """Iterate over a few items with long work for each, and show "`what` 7 of 20" on standard error.

    Args:
        items: a sequence.
        what: text before the number.
        unit: name of an item.

    Yields:
        The items.
    """
    with progress(desc=f"{what} 1 of {len(items)}", total=len(items), unit=unit, leave=False) as bar:
        for number, item in enumerate(items, 1):
            # If standard error is no terminal, each refresh would print a line.
            bar.set_description(f"{what} {number} of {len(items)}", refresh=sys.stderr.isatty())
            yield item
            bar.update()


def wrapped(text):
    """Wrap a text at a terminal's width. All lines except the first are indented."""
    return textwrap.fill(text, COLUMNS, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
