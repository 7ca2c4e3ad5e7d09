"""Show the pictures that predict.py wrote on one page, `index.html` in the same folder, for a browser.

    python -m evaluation.diagnoses runs/examples

Reads   <folder>/predictions.csv, pictures/<image_id>.png

Writes  <folder>/index.html    the pictures, the most suspect image first
"""

import html
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import tyro
from tyro.conf import Positional

from data.classes import positive_class
from utils.errors import InputError, one_sentence_errors
from utils.files import atomic_write

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1.5rem; }}
  .warning {{ border-left: 4px solid #b3400a; padding-left: 1rem; }}
  h2 {{ font-size: 1.05rem; margin: 2rem 0 .3rem; overflow-wrap: anywhere; }}
  p {{ margin: .3rem 0; }}
  img {{ width: 100%; height: auto; background: #fff; border-radius: 6px; }}
</style>
<h1>{title}</h1>
<p class="warning"><strong>Research software, no medical device: this is no diagnosis.</strong> Show a lesion that
worries you to a doctor.</p>
<p>{count} images, the one with the highest output for {positive} first. Each picture shows the image with its mask
(cyan) and box (yellow), the crop, and the output of every method.</p>
{sections}
</html>
"""


@dataclass(frozen=True)
class Settings:
    """The folder that predict.py wrote to."""

    folder: Positional[Path]


def main(settings):
    page, text = settings.folder / "index.html", render(settings.folder)
    with atomic_write(page) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
    print(f"open {page.resolve().as_uri()} in a browser")


def render(folder):
    """The page as HTML.

    Raises:
        InputError: if the folder holds no table of predict.py.
    """
    file = folder / "predictions.csv"
    try:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")  # names: 0001, NA
        classes = [name for name in rows if f"mean_{name}" in rows]  # predict.py writes two columns for each
        if not classes:
            raise ValueError("no column mean_<class>")
        positive = positive_class(classes)
        rows = rows.sort_values(positive, ascending=False, kind="stable", key=pd.to_numeric)
        sections = "\n".join(section(folder, row, positive) for row in rows.to_dict("records"))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{file} is no table of predict.py ({error}): run `python predict.py` first") from None
    words = html.escape(positive.replace("_", " "))
    return PAGE.format(title="Diagnoses of images", count=len(rows), positive=words, sections=sections)


def section(folder, row, positive):
    """The part of the page about one image.

    Args:
        folder: the folder of predict.py.
        row: a row of predictions.csv, as a dictionary.
        positive: name of the positive class.
    """
    picture = folder / "pictures" / f"{row['image_id']}.png"
    figures = f"{positive.replace('_', ' ')} {float(row[positive]):.3f}; decision: {row['decision'].replace('_', ' ')}"
    if "suspect" in row:
        figures += f"; suspect: {row['suspect']}"
    text = f"<h2>{html.escape(Path(row['file']).name)}</h2>\n<p>{html.escape(figures)}</p>"
    if picture.exists():
        address = quote(f"pictures/{picture.name}", errors="surrogateescape")
        text += f'\n<img src="{address}" alt="{html.escape(figures)}" loading="lazy">'
    return text


if __name__ == "__main__":
    with one_sentence_errors():
        main(tyro.cli(Settings, description=__doc__))
