"""Files of weights: the same tensors are the same bytes."""

from __future__ import annotations

import json

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from astrape.graph.checksums import sealed_file

WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
SHAPES = st.lists(st.integers(0, 3), max_size=3)
TYPES = st.sampled_from([torch.float32, torch.float16, torch.float64, torch.int8])


@given(
    about=st.dictionaries(WORDS, WORDS, max_size=6),
    parts=st.dictionaries(WORDS.filter(lambda name: name != "__metadata__"), st.tuples(SHAPES, TYPES), max_size=5),
)
def test_a_sealed_file_reads_as_safetensors_own_and_is_the_same_bytes_each_time(
    about: dict[str, str], parts: dict[str, tuple[list[int], torch.dtype]]
) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: (8 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(kind)
        for name, (shape, kind) in parts.items()
    }
    content = sealed_file(tensors, about)
    # The writer of safetensors draws an order for each file: eight of one order would be chance.
    assert {sealed_file(tensors, about) for _ in range(8)} == {content}
    read, own = load(content), load(save(tensors))
    assert read.keys() == own.keys() == tensors.keys()
    for name, tensor in own.items():
        torch.testing.assert_close(read[name], tensor, rtol=0, atol=0)
    end = 8 + int.from_bytes(content[:8], "little")
    assert end % 8 == 0
    metadata = json.loads(content[8:end])["__metadata__"]
    assert list(metadata) == sorted(metadata)
    said = {name: text for name, text in about.items() if name not in ("crc32", "checked_by")}
    assert said.items() <= metadata.items()
