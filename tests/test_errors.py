"""How scripts end, and what terminals, pipes and closed files do to them."""

import ast
import os
import subprocess
import sys

import pytest

from data.official import OfficialFolders
from pipeline.networks import load_network
from tests.conftest import REPOSITORY
from utils.errors import InputError, one_sentence_errors

PRINTING = """
from utils.errors import one_sentence_errors
with one_sentence_errors():
    for line in range({lines}):
        print("line", line, flush={flush})
"""


def with_nobody_reading(*command):
    """What a Python command ends with when its output goes into a pipe that nobody reads."""
    source, target = os.pipe()
    os.close(source)
    try:
        return subprocess.run(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            stdout=target,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(target)


@pytest.mark.parametrize(("lines", "flush"), [(100_000, False), (1000, True), (1, False)])
def test_a_reader_who_leaves_ends_a_script_quietly(lines, flush):
    result = with_nobody_reading("-c", PRINTING.format(lines=lines, flush=flush))
    assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.parametrize("script", ["resize.py", "evaluate.py"])
def test_the_help_can_be_cut_short(script):
    result = with_nobody_reading(script, "--help")
    assert (result.returncode, result.stderr) == (141, "")


def test_bad_input_is_named_even_where_nobody_reads_on():
    code = "from utils.errors import *\nwith one_sentence_errors():\n    print('x'); raise InputError('the sentence')"
    assert with_nobody_reading("-c", code).stderr == "-c: error: the sentence\n"


IMPORTING = """
from pipeline import command_line
config = command_line.start("")
import os, signal, time
from utils.errors import InputError
{statement}
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("statement", "code", "end"),
    [
        ("raise InputError('the sentence')", 2, "-c: error: the sentence\n"),
        ("raise OSError(28, 'No space left', 'x')", 2, "-c: error: x cannot be written (No space left): make room or "),
        ("raise MemoryError", 2, "-c: error: memory ran out: "),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "-c: interrupted: run the same command again to go on\n"),
        (
            "import sys; sys.argv.append('--overwrite'); os.kill(os.getpid(), signal.SIGINT)",
            130,
            "-c: interrupted: run the same command without --overwrite to go on (it makes no output again",
        ),
        ("raise ValueError('a fault of ours')", 1, "Traceback (most recent call last):\n"),
    ],
)
def test_errors_while_a_script_imports_end_in_one_sentence_too(statement, code, end, tmp_path):
    command = [sys.executable, "-c", IMPORTING.format(statement=statement)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == code
    assert result.stderr.startswith(end)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_name_that_the_terminal_cannot_show_is_written_otherwise(encoding):
    code = "from utils.errors import one_sentence_errors\nwith one_sentence_errors(): print('caf\\udce9 \\u00e9')"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode(encoding).strip() in (r"caf\udce9 \xe9", r"caf\udce9 é")


@pytest.mark.parametrize("path", sorted([*REPOSITORY.glob("*.py"), *REPOSITORY.glob("[dmpe]*/*.py")]), ids=str)
def test_text_files_are_utf8_whatever_the_locale(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    texts = [call for call in calls if getattr(call.func, "attr", "") in ("read_text", "write_text")]
    for call in texts:
        as_json = call.args and ast.unparse(call.args[0]).startswith("json.dumps(")  # which is ASCII
        assert as_json or "encoding" in [word.arg for word in call.keywords], ast.unparse(call)


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_pictures_are_drawn_whatever_backend_the_environment_asks_for(run_script, tmp_path, backend):
    code = "import sys; from evaluation.plots import *; save(training_curves({}), sys.argv[1])"
    code = code.replace("training_curves({})", "reliability(np.eye(3), np.eye(3))")
    result = run_script("-c", code, tmp_path / "picture.png", MPLBACKEND=backend)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "picture.png").stat().st_size > 1000


# ---- files of another user -------------------------------------------------------------------------------------------


@pytest.fixture
def closed(tmp_path):
    """A file and a folder that only their owner could open, if the owner opened them."""
    for path in (tmp_path / "file", tmp_path / "ISIC-2017_Test_v2_Data", tmp_path / "ISIC-2017_Test_v2_Part3.csv"):
        path.mkdir() if path.name.endswith("Data") else path.write_text("text")
        path.chmod(0)
    (tmp_path / "ISIC-2017_Test_v2_Part3.csv").rename(tmp_path / "ISIC-2017_Test_v2_Part3_GroundTruth.csv")
    return tmp_path


def reading(folder):
    """From what is read to a function that reads it."""
    return {
        "folder of images": lambda: OfficialFolders(folder).images("test"),
        "labels": lambda: OfficialFolders(folder).labels("test", ["ISIC_0000001"]),
        "network": lambda: load_network(folder / "file", "training.py", "resnet50"),
        "record": lambda: (folder / "file").read_text(),
        "table to write": lambda: (folder / "ISIC-2017_Test_v2_Data" / "table.csv").write_text("text"),
    }


@pytest.mark.parametrize("what", reading(None))
def test_a_file_closed_to_us_is_called_that(closed, as_nobody, capsys, what):
    with as_nobody(), pytest.raises(SystemExit) as end, one_sentence_errors():
        reading(closed)[what]()
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert str(closed) in message
    assert "permission denied: ask its owner for access" in message
    assert not any(word in message for word in ("damaged", "make room", "holds no"))


def test_a_full_disk_is_still_called_that(capsys):
    with pytest.raises(SystemExit) as end, one_sentence_errors():
        raise OSError(28, "No space left on device", "masks/a.png")
    assert end.value.code == 2
    assert "masks/a.png cannot be written (No space left on device): make room" in capsys.readouterr().err


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError), one_sentence_errors():
        raise ZeroDivisionError
    with pytest.raises(OSError, match="odd"), one_sentence_errors():
        raise OSError(5, "odd")
    with pytest.raises(SystemExit), one_sentence_errors():
        raise InputError
