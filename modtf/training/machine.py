"""What makes training fast on the machine at hand."""

from __future__ import annotations

import ctypes.util
import os
import sys
from pathlib import Path

import torch


def use_cpu_well(threads: int) -> None:
    """Settings for training on a CPU: threads, freed memory that is kept, and kernels that are kept for all shapes."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    torch.set_num_threads(threads)
    if sys.platform == "linux" and (libc := ctypes.util.find_library("c")):
        keep_allocations_below, keep_free_memory = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
        mallopt = ctypes.CDLL(libc).mallopt
        mallopt(keep_allocations_below, 2**25)
        mallopt(keep_free_memory, 2**31 - 1)


def fast_bf16() -> bool:
    """Whether bfloat16 autocast is faster than float32 here: on GPUs that have it, and on CPUs that multiply in it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and not {"amx_bf16", "avx512_bf16"}.isdisjoint(cpuinfo.read_text().split())
