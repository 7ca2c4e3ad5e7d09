"""What the tests share: a tiny sample, and a way to run the real scripts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def run_script():
    """Function that runs a script of the repository as a user would: run_script("resize.py", "--seed", 1)."""

    def run(*command, **environment):
        return subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def tiny_sample(tmp_path_factory):
    """Folder of a sample of 16 training, 8 validation and 8 test images; read only."""
    from data.sample import write_sample

    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, {"training": 16, "validation": 8, "test": 8}, seed=0, height=96, width=128)
    return folder
