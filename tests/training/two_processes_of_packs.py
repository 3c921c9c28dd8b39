"""One of several processes, for ``torchrun``: a short training on a pack in a store, with notes of it.

torchrun --nproc-per-node 2 -m tests.training.two_processes_of_packs GROUND PACK OUT [voice]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from astrape.training.caches.packed import Pack
from astrape.training.packed_windows import PackedWindows
from astrape.training.run import train
from astrape.training.sets import SetWindows
from tests.training import grounds, parallel


def note(out: Path, *words: object) -> None:
    with (out / f"process.{os.environ['RANK']}").open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def watch(out: Path) -> None:
    """Note which shards windows are read from, by epoch."""
    table = Pack._table
    epochs = [0]

    def drawing(windows: type[Any]) -> None:
        window = windows.__getitem__

        def drawn(self: Any, place: tuple[int, int]) -> Any:
            epochs[0] = place[0]
            return window(self, place)

        windows.__getitem__ = drawn

    def opened(self: Pack, shard: str) -> Any:
        note(out, "read", epochs[0], shard)
        return table(self, shard)

    drawing(PackedWindows)
    drawing(SetWindows)
    Pack._table = opened  # type: ignore[method-assign]


def watch_store(out: Path) -> None:
    """Note what is fetched from a bucket."""
    import s3fs

    fetch = s3fs.S3FileSystem._get_file

    async def fetched(self: Any, at: str, to: str, *given: Any, **more: Any) -> Any:
        note(out, "fetched", at.rpartition("/")[2])
        return await fetch(self, at, to, *given, **more)

    s3fs.S3FileSystem._get_file = fetched


if __name__ == "__main__":
    torch.set_num_threads(1)
    ground, pack, folder, *stage = sys.argv[1:]
    watch(Path(folder))
    if pack.startswith("s3://"):
        watch_store(Path(folder))
    more = ((("steps_per_epoch",), 3), (("batch",), 2))
    if stage:
        given = parallel.options(Path(ground), Path(folder) / "run", *more, pack=pack)
    else:
        given = grounds.options(Path(folder) / "run", "encoder", *more, root=Path(ground), pack=pack)
    train(given, lambda line: None)
