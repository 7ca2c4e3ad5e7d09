"""Read tables of users. A table that could be read in two ways is refused.

Text may be UTF-8, UTF-16 with a byte order mark, or any encoding that extends ASCII, plain or compressed by gzip.
Columns are separated by commas, semicolons, tabs or bars; numbers may have a decimal comma. Spaces around cells, the
case of column names, empty rows, and empty cells at the end of a row are ignored.
"""

import codecs
import csv
import gzip
import io
import re
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from data.images import SUFFIXES
from utils.errors import InputError

ID_COLUMNS = ("image_id", "image", "image_name", "isic_id")  # in this challenge, later ones, and the ISIC archive
OF_FILES = (*ID_COLUMNS, "mask")  # columns with names of files, whose bytes stay as they are
SEPARATORS = "\t;|,"  # the comma last, because it may be a decimal comma if there is another separator
NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
FILE_ENDING = "(" + "|".join(map(re.escape, SUFFIXES)) + ")$"
ODD_NAME = "two suffixes, or a space at an end of its name"  # see `id_in_tables`
GZIP = b"\x1f\x8b"
ENCODINGS = {  # UTF-32 first, as its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def read_table(path, columns):
    """Read a table of numbers by image id; see `read_cells`.

    Args:
        path: the file.
        columns: names that its header must hold, `image_id` first.

    Returns:
        Data frame indexed by image id, with the other columns as float64, in the file's order.

    Raises:
        InputError: see `read_cells` and `as_numbers`.
    """
    return as_numbers(path, read_cells(path, columns)[columns[1:]])


def read_columns(path, columns, without_header=()):
    """Read a table of texts.

    Args:
        path: the file.
        columns: names that its header should hold. They are used to find the separator.
        without_header: names for the columns of a table without a header. The first row is data and not a header if it
            has numbers behind the id, and the id is none of `ID_COLUMNS`. Empty if a header is required.

    Returns:
        Data frame of stripped texts, indexed by the number of the row, counted from 1. Column names are in lower case,
        with `_` for spaces and hyphens. Texts that are not UTF-8 are read as Latin-1, except names of files.

    Raises:
        InputError: if the file is missing or is no table of text, has a column twice, or a row longer than its header.
    """
    rows = read_rows(path, columns)
    if without_header and is_data(rows[0]) and plain(rows[0][0]) not in ID_COLUMNS:
        names = list(without_header)[: len(rows[0])]
    else:
        names = [plain(as_latin1(name)) for name in rows.pop(0)]
    for number, row in enumerate(rows, start=1):
        if len(row) > len(names):
            raise InputError(
                f"{path} has rows of {len(row)} fields for {len(names)} columns (the first is row {number}): correct "
                f"the header or the rows, or save it with semicolons between the columns if commas are decimal commas"
            )
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InputError(f"{path} has the column {twice[0]} twice: keep the one that is meant")
    rows = [row + [""] * (len(names) - len(row)) for row in rows]
    table = pd.DataFrame(rows, range(1, len(rows) + 1), names, dtype=object)
    for name in table.columns.difference(OF_FILES):
        table[name] = table[name].map(as_latin1)
    return table


def as_latin1(text):
    """A text of `read_text`, read as Latin-1 if its bytes are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogateescape").decode("latin-1")
    return text


def refuse_missing(path, table, columns):
    """Raise `InputError` if a table lacks a column."""
    missing = [name for name in columns if name not in table]
    if missing:
        header = ",".join(name for name in table if name)
        raise InputError(
            f"{path} has no column {', '.join(missing)}: its header must be {','.join(columns)}, not {header[:200]}"
        )


def read_cells(path, columns, without_header=()):
    """Read a table of texts by image id.

    Args:
        path: the file. Suffixes of images (`data.images.SUFFIXES`) at the end of ids are removed.
        columns: names that its header must hold, `image_id` first. Instead of it, the table may have another of
            `ID_COLUMNS`.
        without_header: see `read_columns`.

    Returns:
        Data frame as `read_columns` gives it, indexed by image id, without the column of the ids, in the file's order.

    Raises:
        InputError: see `read_columns`; if the table lacks a column, has two columns of ids that differ, or lacks an id
            or names one twice.
    """
    table = read_columns(path, columns, without_header)
    ids = [name for name in ID_COLUMNS if name in table]
    for name in ids:
        table[name] = without_ending(table[name])
    for other in ids[1:]:
        if (table[other] != table[ids[0]]).any():
            raise InputError(f"{path} has two columns of ids, {ids[0]} and {other}, that differ: remove one")
    table = table.rename(columns={name: "image_id" for name in ids[:1]}).drop(columns=ids[1:])
    refuse_missing(path, table, columns)
    if (table["image_id"] == "").any():
        raise InputError(f"{path} has a row without image_id: correct the table")
    repeated = table["image_id"][table["image_id"].duplicated()]
    if len(repeated):
        raise InputError(f"{path} names {repeated.iloc[0]} twice: keep one row per image")
    return table.set_index("image_id")


def id_in_tables(image_id):
    """What tables make of an image id: no suffix of an image, no space at an end."""
    return re.sub(FILE_ENDING, "", image_id, flags=re.IGNORECASE).strip()


def without_ending(names):
    """Remove the suffixes from a column of names of image files."""
    return names.str.replace(FILE_ENDING, "", case=False, regex=True)


def as_numbers(path, cells):
    """Turn texts into float64; a comma is a decimal comma.

    Args:
        path: the file, for errors.
        cells: data frame of `read_cells`, with only the columns that are numbers.

    Raises:
        InputError: if a cell is empty, NaN or no number, or if there are commas and points, so that one of them may
            separate thousands.
    """
    if cells.apply(lambda column: column.str.contains(",", regex=False)).any(axis=None):
        if cells.apply(lambda column: column.str.contains(".", regex=False)).any(axis=None):
            raise InputError(f"{path} has decimal commas and decimal points: use one of them throughout")
        cells = cells.apply(lambda column: column.str.replace(",", ".", regex=False))
    try:
        numbers = cells.replace("", "nan").astype(np.float64)
    except ValueError as error:
        raise InputError(f"{path} holds something that is no number ({error}): correct the table") from None
    empty = numbers.index[numbers.isna().any(axis=1)]
    if len(empty):
        raise InputError(f"{path} has an empty cell for {empty[0]}: fill it in")
    return numbers


def read_rows(path, names):
    """Read the rows of a table, header included, as lists of stripped texts; see `read_cells`.

    Args:
        path: the file.
        names: names of columns that its header should hold. They are used to find the separator.

    Returns:
        List of at least one row; none is empty or ends with an empty cell.
    """
    text = read_text(path)
    separators = SEPARATORS
    if first_line := re.match(r'\s*"?sep=([\t;|,])"?\s*\n', text):  # Excel writes such a line
        separators, text = first_line[1], text[first_line.end() :]

    def rows(separator):
        reader = csv.reader(io.StringIO(text, newline=None), delimiter=separator, strict=True, skipinitialspace=True)
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            while cells and not cells[-1].strip(SEPARATORS):
                cells.pop()
            if cells:
                yield cells

    def fitness(separator):
        """How well a separator fits: number of known names in the first row, whether it is data, and its length."""
        try:
            first = next(rows(separator), [])
        except csv.Error:  # quotes that make no sense with another separator
            return (0, False, 0)
        return sum(plain(cell) in (*names, *ID_COLUMNS) for cell in first), is_data(first), len(first)

    try:
        table = list(rows(max(separators, key=fitness)))
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as a table ({error}): correct its quotes or replace it") from None
    if not table:
        raise InputError(f"{path} is empty: replace the file")
    return table


def plain(name):
    """A column's name in lower case, with `_` for each space or hyphen."""
    return re.sub(r"[\s-]+", "_", name.lower())


def is_data(row):
    """Whether a first row is data and not a header: all cells after the id are numbers."""
    return len(row) > 1 and all(NUMBER.fullmatch(cell) for cell in row[1:])


def read_text(path):
    """Read a file as text. Bytes that are not UTF-8 become surrogates, as Python does in file names.

    Raises:
        InputError: if the file cannot be read or is no text.
    """
    try:
        content = Path(path).read_bytes()
        if content.startswith(GZIP):
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: put the table there") from None
    except PermissionError:
        raise InputError(f"{path} cannot be read, permission denied: ask its owner for access") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read as a table ({error}): replace the file") from None
    encoding = next((encoding for mark, encoding in ENCODINGS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "strict")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} begins like {encoding.upper()}, but is invalid ({error}): replace the file") from None
    if "\0" in text:
        raise InputError(
            f"{path} is no text (but a spreadsheet or an archive?), or UTF-16 without its mark: save it as CSV in UTF-8"
        )
    return text
