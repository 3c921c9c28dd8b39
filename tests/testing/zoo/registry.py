"""Registration of the zoo's specimens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from astrape.blocks import Stream, StreamBlock

__all__ = ["ZOO", "breaks"]

ZOO: dict[str, tuple[Callable[[], StreamBlock], str]] = {}
"""By name, how to build a specimen, and the property that it breaks."""

STEREO = Stream(1000, 2)


def breaks(property_name: str, source: Any = STEREO) -> Callable[[type[StreamBlock]], type[StreamBlock]]:
    """Put a class into the zoo under its own name, built on ``source``."""

    def add(cls: type[StreamBlock]) -> type[StreamBlock]:
        ZOO[cls.__name__] = (lambda: cls(source), property_name)
        return cls

    return add
