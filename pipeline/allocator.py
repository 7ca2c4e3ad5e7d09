"""Settings of the C library's memory allocator that speed up training on a CPU."""

import ctypes
import os
import platform

# Parameters of `mallopt`, from <malloc.h>.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
M_ARENA_MAX = -8
CHOICES = ("MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES")  # such environment variables choose an allocator


def keep_freed_memory():
    """Let glibc reuse freed memory for the next tensor instead of returning it to the kernel.

    By default, glibc requests new memory for every large tensor, and the kernel fills all its pages with zeros, in
    every step. On some machines a step then takes twice as long (docs/speed.md). There is one arena for all threads,
    because glibc still returns the memory of further arenas to the kernel.

    Call this before the backend is loaded and starts threads. It does nothing if the C library is not glibc (musl,
    macOS, Windows), or if the user has chosen an allocator (LD_PRELOAD, MALLOC_*, GLIBC_TUNABLES).
    """
    chosen = any(value and name.startswith(CHOICES) for name, value in os.environ.items())
    if chosen or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)  # -1 as an unsigned number: never trim
    libc.mallopt(M_ARENA_MAX, 1)
