"""How far a stage is: a bar on a terminal, a line now and then in a log file."""

import io

import keras
import numpy as np
import pytest

from data.batches import Batches
from pipeline.fitting import fit
from utils import progress as module
from utils.progress import SECONDS, progress


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def clock(monkeypatch):
    """What tqdm takes for the time, as a list of one number of seconds."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


@pytest.fixture
def stderr(monkeypatch):
    """Function that puts a stream in the place of standard error."""

    def replace(terminal):
        stream = Stream(terminal)
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    return replace


def test_a_log_file_gets_a_line_every_half_minute_without_carriage_returns(stderr, clock):
    log = stderr(terminal=False)
    for _ in progress(iter(range(100_000)), "training", 100_000):
        clock[0] += 0.0125
    lines = log.getvalue().split("\n")
    assert "\r" not in log.getvalue()
    assert lines[-1] == ""
    assert len(lines) - 1 == 100_000 * 0.0125 // SECONDS
    assert lines[9] == "training:  24% 24000/100000 [05:00<15:50, 80.00image/s]"


def test_slow_work_gets_a_line_an_item_and_quick_work_none(stderr, clock):
    log = stderr(terminal=False)
    for _ in progress(range(3), "slow", unit="step"):
        clock[0] += 3600
    assert log.getvalue().splitlines()[0] == "slow:  33% 1/3 [1:00:00<2:00:00, 3600.00s/step]"
    assert len(log.getvalue().splitlines()) == 3
    log = stderr(terminal=False)
    with progress(total=9, desc="quick") as bar:
        for _ in range(9):
            clock[0] += 3
            bar.update()
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar(stderr, clock):
    screen = stderr(terminal=True)
    assert list(progress(range(3), "split")) == [0, 1, 2]
    assert screen.getvalue().startswith("\rsplit:   0%|")
    assert "100%|" in screen.getvalue().split("\r")[-1]
    assert screen.getvalue().count("\n") == 1


def test_the_steps_of_a_long_epoch_are_told(stderr, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(module, "SECONDS", 1e-9)
    log = stderr(terminal=False)
    crops = keras.Input((4, 4, 3))
    model = keras.Model(crops, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(crops)))
    model.compile(loss="categorical_crossentropy")
    batches = [Batches(np.zeros((7, 4, 4, 3), np.uint8), np.eye(2)[[0] * 7], batch_size=3) for _ in range(2)]
    fit(model, *batches, 2, tmp_path)
    told = [line.split(" [")[0] for line in log.getvalue().splitlines()]
    assert told == [f"epoch {epoch}: {100 * k / 3:3.0f}% {k}/3" for epoch in (1, 2) for k in (1, 2, 3)]
    assert capsys.readouterr().out.count("val_loss") == 2
