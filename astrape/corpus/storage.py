"""Files of a corpus: whole or not there."""

from __future__ import annotations

from astrape.training.caches.files import StorageError, is_stale, temporaries, write_whole
from astrape.training.corpus import shown

__all__ = ["StorageError", "is_stale", "shown", "temporaries", "write_whole"]
