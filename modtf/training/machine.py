"""Settings that make training fast on this machine."""

from __future__ import annotations

import ctypes.util
import os
import sys
from functools import cache
from pathlib import Path

import torch


def use_cpu_well(threads: int) -> None:
    """Set the number of threads, and keep freed memory and the kernels of many shapes for later batches."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    torch.set_num_threads(threads)
    if sys.platform == "linux" and (libc := ctypes.util.find_library("c")):
        keep_allocations_below, keep_free_memory = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
        mallopt = ctypes.CDLL(libc).mallopt
        mallopt(keep_allocations_below, 2**25)
        mallopt(keep_free_memory, 2**31 - 1)


@cache
def fast_bf16() -> bool:
    """Whether bfloat16 is faster than float32 here: on GPUs, and on CPUs with matrix units for it (AMX).

    Of CPUs with vector instructions for it alone (avx512_bf16), one took 1.6 times as long for a product as in float32,
    another less than half as long: there it is worth a try.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text().split()
