"""Voices: voicebank files and how they are made of recordings, conversion, evaluation."""
