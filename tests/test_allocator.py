"""The C library's allocator: what a script that runs a network makes of it."""

import platform

import pytest

from pipeline import allocator

GLIBC = platform.libc_ver()[0] == "glibc"
CHOICES = ("MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES")
# A script as the stages are, which counts the page faults of blocks as large as a tensor, made and freed in turn.
SCRIPT = """
import resource
from pathlib import Path

from pipeline import command_line

def main(config):
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    def use_a_block(_):
        block = np.empty(2**26, np.uint8)
        block[::4096] = 1

    with ThreadPoolExecutor(1) as pool:  # tensors are made by threads of the backend
        list(pool.map(use_a_block, range(2)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        list(pool.map(use_a_block, range(10)))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

command_line.run(main, command_line.start(__doc__))
"""


@pytest.fixture
def faults(run_script, monkeypatch):
    """Function that runs the script with some environment variables: page faults of ten blocks of 64 MiB."""
    for name in list(allocator.os.environ):
        if name.startswith(CHOICES):
            monkeypatch.delenv(name)

    def run(**environment):
        result = run_script("-c", SCRIPT, **environment)
        assert result.returncode == 0, result.stderr
        return int(result.stdout)

    return run


@pytest.mark.skipif(not GLIBC, reason="this system's C library is not glibc")
def test_a_script_keeps_the_memory_that_it_freed(faults):
    assert faults() < 100
    assert faults(LD_PRELOAD="") < 100, "an empty variable is no choice"


@pytest.mark.skipif(not GLIBC, reason="this system's C library is not glibc")
@pytest.mark.parametrize(
    "choice",
    [
        {"MALLOC_PERTURB_": "0"},
        {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"},
        {"LD_PRELOAD": "libm.so.6"},  # stands for an allocator, and changes none
    ],
)
def test_whoever_has_chosen_an_allocator_keeps_it(faults, choice):
    assert faults(**choice) > 300  # ten blocks of 32 huge pages are 320, of 4 KiB pages many more


@pytest.mark.parametrize("libc", [("musl", "1.2.5"), ("", "")])
def test_without_glibc_nothing_happens(monkeypatch, libc):
    for name in list(allocator.os.environ):
        if name.startswith(CHOICES):
            monkeypatch.delenv(name)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("the C library was touched"))
    allocator.keep_freed_memory()
