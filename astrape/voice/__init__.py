"""Voices: voicebank files and how they are made of recordings, conversion, evaluation."""

from astrape.voice.conversion import Converter, convert, voice_of
from astrape.voice.decoding import CodeDecoder
from astrape.voice.folder import Batch

__all__ = ["Batch", "CodeDecoder", "Converter", "convert", "voice_of"]
