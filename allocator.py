"""How the C library gives out memory, which decides how fast a network trains on a CPU."""

import ctypes
import os
import platform

# Of <malloc.h>.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
CHOICES = ("MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES")


def keep_freed_memory():
    """Have glibc keep what is freed, for the next tensor, instead of giving it back to the kernel.

    As it is, every large tensor is mapped afresh and all its pages are faulted in and filled with zeros, at every step.
    Two cores, TensorFlow 2.21, our own batches, seconds a training step (page faults a step; peak memory):

        AMD EPYC         U-Net, 128 px, batch 16       2.4 (516,000; 1.30 GB)     to  1.2 (3,000; 1.45 GB)
                         xception, 128 px, batch 32    8.2 (1,880,000; 2.77 GB)   to  4.2 (25,000; 3.29 GB)
        Intel Xeon, AMX  U-Net                         0.37                       to  0.37
                         xception                      1.74                       to  1.70
        the same with    U-Net                         0.78 (70,000)              to  0.76 (20,000)
        oneDNN off       xception                      2.69 (200,000)             to  2.52 (1,000)

    So the gain is that of the CPU and the kernel: TensorFlow turns oneDNN, which keeps memory of its own, on by default
    only where the CPU has AVX512-VNNI or the like (TF_ENABLE_ONEDNN_OPTS=0 turns it off), and a page fault costs more
    on some machines than on others.

    To be called before the backend is loaded. Where the C library is not glibc (musl, macOS, Windows), or the
    environment shows that somebody has chosen (LD_PRELOAD of another allocator, MALLOC_*, GLIBC_TUNABLES), nothing
    happens.
    """
    chosen = any(value and name.startswith(CHOICES) for name, value in os.environ.items())
    if chosen or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)  # read as unsigned: never
