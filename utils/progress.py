"""What a terminal shows of long work: a bar, or a line now and then in a log file; and lines that fit into it."""

import sys
import textwrap

from tqdm import tqdm

SECONDS = 30  # between two lines of a log file
COLUMNS = 97  # of a line; `pipeline.all_stages` may put the number of a network in front


class Lines(tqdm):
    """tqdm that writes lines of text instead of one that is painted over."""

    def display(self, msg=None, pos=None):
        if msg is None:  # otherwise tqdm wipes away what it has painted
            print(self, file=self.fp, flush=True)


def progress(iterable=None, desc=None, total=None, unit="image", **options):
    """Show on standard error how far one is, how fast it goes and how long it will take still.

    Where that is no terminal, as under a batch system, this takes a line every half minute, and none for what is done
    by then.

    Args:
        iterable: what to go through, or None to call `update` by hand.
        desc: words in front.
        total: number of items.
        unit: what an item is.
        options: further ones of `tqdm.tqdm`.

    Returns:
        A `tqdm.tqdm` of the iterable.
    """
    if sys.stderr.isatty():
        return tqdm(iterable, desc, total, unit=unit, **options)
    options |= {"mininterval": SECONDS, "delay": SECONDS, "miniters": 1, "ncols": 0, "leave": False}
    return Lines(iterable, desc, total, unit=unit, **options)


def numbered(items, what, unit="item"):
    """Go through a few items that take a while each, and show on standard error "`what` 7 of 20".

    Args:
        items: a sequence.
        what: words in front of the number.
        unit: what an item is.

    Yields:
        The items.
    """
    with progress(desc=f"{what} 1 of {len(items)}", total=len(items), unit=unit, leave=False) as bar:
        for number, item in enumerate(items, 1):
            # Where this is no terminal, each refresh would be a line.
            bar.set_description(f"{what} {number} of {len(items)}", refresh=sys.stderr.isatty())
            yield item
            bar.update()


def wrapped(text):
    """A sentence in lines of a terminal's width, all but the first indented."""
    return textwrap.fill(text, COLUMNS, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
