"""Settings that make training fast on this machine."""

from __future__ import annotations

import ctypes.util
import os
import sys
import time
from functools import cache

import torch


def use_cpu_well(threads: int) -> None:
    """Set the number of threads, and keep freed memory and the kernels of many shapes for later batches."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    torch.set_num_threads(threads)
    if sys.platform == "linux" and (libc := ctypes.util.find_library("c")):
        keep_allocations_below, keep_free_memory = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
        mallopt = ctypes.CDLL(libc).mallopt
        mallopt(keep_allocations_below, 2**25)  # no more is possible
        mallopt(keep_free_memory, 2**31 - 1)


@cache
def fast_bf16() -> bool:
    """Whether products in bfloat16 are clearly faster than in float32 here, as on GPUs and CPUs with units for it.

    On CPUs it is measured once: of those with instructions for it, one took 1.6 times as long as in float32, others half
    as long and a fifth.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return _seconds_of_product(torch.bfloat16) < 0.7 * _seconds_of_product(torch.float32)


def _seconds_of_product(dtype: torch.dtype) -> float:
    """The shortest of some, which a busy machine disturbs least."""
    a, b = torch.ones(512, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - began)
    return min(seconds)
