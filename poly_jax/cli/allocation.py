"""Where the C library takes the memory of a step's intermediate results from."""

import ctypes

from poly_jax.cli.platforms import has_accelerator

# The numbers of `mallopt`'s parameters in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_LARGEST = 2**31 - 1


def reuse_memory() -> None:
    """Have the C library keep the memory that a step frees for the next step, where CPUs do the work.

    XLA's CPU backend allocates the intermediate results of a program as one block each time it runs. glibc
    maps so large a block anew and unmaps it when it is freed, so that the kernel clears each of its pages for
    every step. Here it stays in the heap. Threads share one heap, because the heaps of threads are too small
    for such blocks. Nothing is done with another C library, or beside an accelerator, where threads that read
    data should not wait for one another.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None or has_accelerator():
        return
    set_option(_ARENA_MAX, 1)
    set_option(_MMAP_MAX, 0)
    set_option(_TRIM_THRESHOLD, _LARGEST)
