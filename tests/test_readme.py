"""The README says what the code does."""

import ast
import re
from itertools import pairwise

import pytest

from config import PRESETS
from tests.conftest import REPOSITORY


def settings_table():
    """Table of all settings with the values of the presets and the documentation of `config.py`, as Markdown."""
    tree = ast.parse((REPOSITORY / "config.py").read_text())
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config").body
    rows = ["| setting | `isic2017` | `isic2017_256` | `fine_tuned` | meaning |", "| --- | --- | --- | --- | --- |"]
    for field, documentation in pairwise(body):
        if isinstance(field, ast.AnnAssign):
            name = field.target.id
            default, *others = (getattr(PRESETS[preset], name) for preset in ("isic2017", "isic2017_256", "fine_tuned"))
            shown = [" ".join(default) if isinstance(default, tuple) else default]
            shown += ["" if value == default else value for value in others]
            meaning = " ".join(documentation.value.value.split())
            rows.append("| " + " | ".join([f"`{name}`", *map(str, shown), meaning]) + " |")
    return "\n".join(rows) + "\n"


def test_the_settings_table_is_that_of_the_code():
    table = settings_table()
    assert table in (REPOSITORY / "docs/settings.md").read_text(), f"put this table into docs/settings.md:\n{table}"


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted(REPOSITORY.glob("docs/*.md")))])
def test_every_link_leads_somewhere(page):
    path = REPOSITORY / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_names_every_script():
    scripts = {path.name for path in REPOSITORY.glob("*.py")}
    assert [name for name in scripts if name not in (REPOSITORY / "README.md").read_text()] == []
