"""One of several processes that train on parallel sets, for ``torchrun``.

torchrun --nproc-per-node 2 -m tests.training.two_processes_of_sets ROOT OUT BATCH
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from astrape.training.run import train
from tests.training import parallel, two_processes

if __name__ == "__main__":
    torch.set_num_threads(1)
    root, folder, batch = sys.argv[1:]
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    # From a cache: recordings that are resampled as they are read would be so in float64, which no training does.
    cache, recipe = Path(root) / "decoded", str(Path(root) / "judged.yaml")
    given = parallel.options(Path(root), out, (("batch",), int(batch)), recipe=recipe, cache=cache)
    two_processes.gradients(replace(given, run_name="gradients"), out)
    train(given, lambda line: None)
