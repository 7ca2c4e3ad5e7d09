"""How the C library gives out memory, which decides how fast a network trains on a CPU."""

import ctypes
import os
import platform

# Of <malloc.h>.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
M_ARENA_MAX = -8
CHOICES = ("MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES")


def keep_freed_memory():
    """Have glibc keep what is freed, for the next tensor, instead of giving it back to the kernel.

    By itself it maps every large tensor afresh, so that all its pages are faulted in and filled with zeros, at every
    step. Two cores, TensorFlow 2.21, seconds a training step (page faults a step; peak memory), as it is and without
    mmap and trimming:

        AMD EPYC                       U-Net, 128 px, batch 16      2.4 (516,000; 1.30 GB)      1.2 (3,000; 1.45 GB)
                                       xception, 128 px, batch 32   8.2 (1,880,000; 2.77 GB)    4.2 (25,000; 3.29 GB)
        Intel Xeon, AMX                U-Net                        0.37                        0.37
                                       xception                     1.74                        1.70
        Intel Xeon, AMX, oneDNN off    U-Net                        0.78 (70,000)               0.76 (20,000)
                                       xception                     2.69 (200,000)              2.52 (1,000)

    So the gain depends on the machine. TensorFlow's oneDNN operations keep memory of their own; they are on by default
    only where the CPU has AVX512-VNNI or the like (TF_ENABLE_ONEDNN_OPTS=0 turns them off), and a page fault costs more
    on some machines than on others.

    One arena: those of further threads are given back to the kernel all the same. Without that, JAX has 91,000 faults a
    step of the U-Net instead of 99,000, and as many as before with xception (291,000, batch 16); with it, the U-Net has
    one fault a step (0.17 s less system time to 2.3 s of user time; peak 1.53 GB instead of 1.31). TensorFlow without
    oneDNN is then down to a few hundred at most, at a lower peak (1.41 GB instead of 1.52).

    To be called before the backend is loaded and starts threads. Where the C library is not glibc (musl, macOS,
    Windows), or the environment shows that somebody has chosen an allocator (LD_PRELOAD, MALLOC_*, GLIBC_TUNABLES),
    nothing happens.
    """
    chosen = any(value and name.startswith(CHOICES) for name, value in os.environ.items())
    if chosen or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)  # read as unsigned: never
    libc.mallopt(M_ARENA_MAX, 1)
