"""Voices: voicebank files and how they are made of recordings, conversion, evaluation."""

from astrape.voice.conversion import Batch, Converter, convert, voice_of

__all__ = ["Batch", "Converter", "convert", "voice_of"]
