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
    every step. Seconds per training step (page faults per step; peak memory) on two cores with TensorFlow 2.21, by
    default and without mmap and trimming:

        AMD EPYC                       U-Net, 128 px, batch 16      2.4 (516,000; 1.30 GB)      1.2 (3,000; 1.45 GB)
                                       xception, 128 px, batch 32   8.2 (1,880,000; 2.77 GB)    4.2 (25,000; 3.29 GB)
        Intel Xeon, AMX                U-Net                        0.37                        0.37
                                       xception                     1.74                        1.70
        Intel Xeon, AMX, oneDNN off    U-Net                        0.78 (70,000)               0.76 (20,000)
                                       xception                     2.69 (200,000)              2.52 (1,000)

    The gain depends on the machine. TensorFlow's oneDNN operations keep their own memory. When this was measured, they
    were on only if the CPU had AVX512-VNNI or similar instructions; now `pipeline.command_line` turns them on
    everywhere. And a page fault costs more on some machines than on others.

    There is one arena for all threads, because glibc still returns the memory of further arenas to the kernel. With
    several arenas, JAX has 91,000 faults per step of the U-Net instead of 99,000, and no fewer than before with
    xception (291,000, batch 16). With one arena, the U-Net has one fault per step (0.17 s less system time, beside
    2.3 s of user time; peak 1.53 GB instead of 1.31). TensorFlow without oneDNN then has a few hundred faults at most,
    at a lower peak (1.41 GB instead of 1.52).

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
