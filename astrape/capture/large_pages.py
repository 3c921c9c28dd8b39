"""Weights on large pages of memory, which a live step reads faster."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["use_large_pages"]

SIZE_FILE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
LARGEST = 1 << 25
"""Some processors have large pages of 512 MB, which no weights fill."""

FEWEST = 1 << 22
"""Bytes in all, below which everything stays as it is: so few remain in the cache from step to step."""

MADV_COLLAPSE = 25


def use_large_pages(tensors: Iterable[Tensor]) -> int:
    """Have the memory of ``tensors`` gathered on large pages, where it lies.

    A live step reads every weight once, and there are more of them than a cache holds. With pages of 4 kB a processor
    looks up each page and stops reading ahead at its end. On pages of 2 MB astrape-vc, 160 MB of weights, takes 13.3 ms
    for 40 ms of sound and not 13.9 (by replay, one core of an AMD EPYC).

    Addresses and values stay as they are, so views, captured steps and graphs that hold the tensors need not know. The
    kernel copies what does not lie on large pages yet, some 0.3 s for 100 MB, once. It is asked page by page, and what
    it refuses stays as it is: memory of a mapped file, or any where the system has no ``MADV_COLLAPSE`` (Linux before
    6.1, other systems). Large pages that are only partly tensors hold their neighbours in memory as well.

    Args:
        tensors: any; those that are not in the memory of the CPU are passed over.

    Returns:
        Bytes that lie on large pages now; 0 for less than 4 MB of tensors, which stay in the cache anyway.
    """
    size = _page_size()
    if not size:
        return 0
    spans = {
        (tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
        for tensor in tensors
        if tensor.device.type == "cpu" and tensor.layout == torch.strided and tensor.numel()
    }
    if sum(length for _, length in spans) < FEWEST:
        return 0
    pages = {page for start, length in spans for page in range(start // size, (start + length - 1) // size + 1)}
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return size * [madvise(page * size, size, MADV_COLLAPSE) for page in sorted(pages)].count(0)


def _page_size() -> int:
    """Bytes of a large page, 0 where there are none."""
    if sys.platform != "linux":
        return 0
    try:
        size = int(SIZE_FILE.read_text())
    except (OSError, ValueError):
        return 0
    return size if 0 < size <= LARGEST else 0
