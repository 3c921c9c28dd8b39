"""Large pages hold the same numbers at the same addresses."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from astrape.capture import large_pages
from astrape.capture.large_pages import use_large_pages

LARGE = 2 << 20


def on_large_pages(tensor: Tensor) -> int:
    """Bytes of the mappings that hold a tensor which lie on large pages, as the kernel counts them."""
    begin = tensor.data_ptr()
    inside, found = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        span = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if span:
            # Memory that was allocated in pieces may be one piece to a tensor, and several mappings to the kernel.
            inside = int(span[1], 16) < begin + tensor.nbytes and begin < int(span[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked")
def test_numbers_and_addresses_stay() -> None:
    weight = torch.randn(4, 1 << 20)
    view, before, address = weight[1, 7:], weight.clone(), weight.data_ptr()
    moved = use_large_pages([weight])
    assert torch.equal(weight, before)
    assert weight.data_ptr() == address
    assert torch.equal(view, before[1, 7:])
    # Whatever it says, the kernel's own count bears it out; where the kernel can't, it says 0.
    assert moved % LARGE == 0
    assert on_large_pages(weight) >= min(moved, weight.nbytes - LARGE)
    weight.mul_(2)
    assert torch.equal(weight, before * 2)
    assert use_large_pages([weight, weight[0], view]) == moved
    assert use_large_pages([torch.randn(1000)]) == 0


def test_what_cannot_be_moved_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(8 << 20))
    mapped = torch.from_file(str(path), size=1 << 20)
    sparse = torch.eye(3).to_sparse()
    use_large_pages([torch.empty(0), torch.empty(5, device="meta"), sparse, mapped])
    assert not mapped.any()
    assert use_large_pages([]) == 0


@pytest.mark.parametrize("text", ["", "none", "0", str(512 << 20)])
def test_a_system_without_large_pages_is_left_alone(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "size"
    file.write_text(text)
    monkeypatch.setattr(large_pages, "SIZE_FILE", file)
    assert use_large_pages([torch.randn(1 << 21)]) == 0
    monkeypatch.setattr(large_pages, "SIZE_FILE", tmp_path / "none")
    assert use_large_pages([torch.randn(1 << 21)]) == 0
