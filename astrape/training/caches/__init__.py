"""Caches: what training reads in place of running a front end and a teacher over and over.

Five kinds, each in a folder of its own below a root, with a ``cache.json`` that says what made it:

- ``wavlm``: the front end's features, from the recipe's own streaming blocks,
- ``content``: a teacher's content, its codes, and which frames are voiced,
- ``speakers``: one embedding for each speaker, or for each utterance,
- ``audio``: the recordings at one rate, decoded once,
- ``pitch``: the fundamental of recordings that no table is beside.

::

    utterances = read_corpus("VCTK-Corpus-0.92")
    make_cache(CacheJob(what="wavlm", root=Path("cache"), wavlm=Path("wavlm-base-plus.safetensors")), utterances)
    cache = Cache(Path("cache/wavlm_L4_200hz"))
    features = cache.stored("p225/p225_001")["features"].map()      # (512, frames) at cache.rate
"""

from __future__ import annotations

from astrape.jobs import Failed, Finding
from astrape.training.caches.cache import Cache, Stored, find_caches
from astrape.training.caches.checking import Checked, check_cache, repair_cache
from astrape.training.caches.files import ArrayFault, StorageError
from astrape.training.caches.front import FrontEnd, front_state, load_front
from astrape.training.caches.makers import CacheJob
from astrape.training.caches.making import Made, make_cache
from astrape.training.caches.pack_checking import check_pack, pack_kinds, repair_pack
from astrape.training.caches.packed import Pack
from astrape.training.caches.packing import Packed, make_pack
from astrape.training.caches.record import KINDS, Record

__all__ = [
    "KINDS",
    "ArrayFault",
    "Cache",
    "CacheJob",
    "Checked",
    "Failed",
    "Finding",
    "FrontEnd",
    "Made",
    "Pack",
    "Packed",
    "Record",
    "StorageError",
    "Stored",
    "check_cache",
    "check_pack",
    "find_caches",
    "front_state",
    "load_front",
    "make_cache",
    "make_pack",
    "pack_kinds",
    "repair_cache",
    "repair_pack",
]
