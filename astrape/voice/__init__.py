"""Voices: voicebank files and how they are made of recordings, conversion, evaluation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astrape.voice.conversion import Converter, convert, voice_of
    from astrape.voice.decoding import CodeDecoder
    from astrape.voice.folder import Batch

__all__ = ["Batch", "CodeDecoder", "Converter", "convert", "voice_of"]

_HOMES = {
    "Batch": "folder",
    "CodeDecoder": "decoding",
    "Converter": "conversion",
    "convert": "conversion",
    "voice_of": "conversion",
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # PyTorch is loaded with what needs it: the command's help does not.
        if name in _HOMES:
            return getattr(import_module(f"astrape.voice.{_HOMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
