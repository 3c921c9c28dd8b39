"""Batch rows are streams of their own: none can be heard in another, whatever is in it."""

from __future__ import annotations

import torch

from astrape.errors import ContractError
from astrape.measure.causality import seeded_forward
from astrape.measure.compare import guarded, require_close, rows_of
from astrape.measure.subject import BATCH, Ports, Subject, draw_noise

__all__ = ["NAN_ISOLATION", "ROW_ISOLATION", "check_nan_isolation", "check_row_isolation"]

ROW_ISOLATION = "row isolation"
"""Name of the property: the output of a row depends on that row of the input and the controls alone."""

NAN_ISOLATION = "NaN isolation"
"""Name of the property: NaN in one row reaches no other row."""

QUANTA = 8
LARGER = (2, 9, 33, 130)
"""Rows of batches of other sizes, in which each row sounds as it does in that of the checks."""

MOST_WORK = 1 << 31
"""Products up to which they are run: some seconds. For 40 million weights that is the smallest of them."""
ROW = 1


def check_row_isolation(subject: Subject) -> None:
    """Another signal or another control in one row leaves the others; a row sounds alike alone and among few or many.

    In training mode too, with the random generator started equally, where statistics over the batch would show.

    Raises:
        ContractError: ``"row isolation"``.
    """
    hint = "compute each row by itself: no mean, norm or maximum over dimension 0"
    with guarded(ROW_ISOLATION, f"running {subject.name}"), torch.no_grad():
        x = subject.signal(QUANTA, seed=15)
        changed = _with_row(x, {port: tensor * 3 for port, tensor in subject.signal(QUANTA, seed=16).items()})
        for training in (False, True):
            subject.block.train(training)
            before, after = seeded_forward(subject, x), seeded_forward(subject, changed)
            what = f"another signal in row {ROW} changed a row beside it" + (" in training mode" if training else "")
            require_close(ROW_ISOLATION, _others(after), _others(before), subject.tolerance, what, hint)
        subject.block.eval()
        before = subject.forward(x)
        # A level has no meaning for input that is not noise, such as indices.
        levels = (("silence", 0.0), ("a whisper", 1e-9), ("thunder", 1e9)) if subject.draw is draw_noise else ()
        for said, level in levels:
            after = subject.forward(_with_row(x, {port: tensor * level for port, tensor in x.items()}))
            what = f"{said} in row {ROW} changed a row beside it"
            require_close(ROW_ISOLATION, _others(after), _others(before), subject.tolerance, what, hint)
        if not subject.streams:
            return
        before, _ = subject.run(x, [3, 1, 4], subject.fresh(), subject.prepared())
        after, _ = subject.run(changed, [3, 1, 4], subject.fresh(), subject.prepared())
        what = f"another signal in row {ROW} changed a row beside it through step"
        require_close(ROW_ISOLATION, _others(after), _others(before), subject.tolerance, what, hint)
        if subject.block.controls:
            mixed = _with_row(subject.values(), subject.values(setting=1))
            after, _ = subject.run(x, [3, 1, 4], subject.fresh(), subject.block.prepare(mixed))
            what = f"another control in row {ROW} changed a row beside it"
            require_close(ROW_ISOLATION, _others(after), _others(before), subject.tolerance, what, hint)
        lone_values = {name: value[ROW : ROW + 1] for name, value in subject.values().items()}
        lone_x = {port: tensor[ROW : ROW + 1] for port, tensor in x.items()}
        alone, _ = subject.run(lone_x, [3, 1, 4], subject.fresh(1), subject.block.prepare(lone_values))
        want = {port: tensor[ROW : ROW + 1] for port, tensor in before.items()}
        what = "a row alone differs from the same row in a batch"
        require_close(ROW_ISOLATION, alone, want, subject.tolerance, what, hint)
        weights = sum(parameter.numel() for parameter in subject.block.parameters())
        for rows in (count for count in LARGER if count * QUANTA * weights <= MOST_WORK):
            crowd_x, values = _repeated(x, rows), _repeated(subject.values(), rows)
            crowd, _ = subject.run(crowd_x, [3, 1, 4], subject.fresh(rows), subject.block.prepare(values))
            what = f"rows differ among {rows} from the same rows among {BATCH}"
            require_close(ROW_ISOLATION, crowd, _repeated(before, rows), subject.tolerance, what, hint)


def check_nan_isolation(subject: Subject) -> None:
    """NaN and infinity in one row leave the other rows as they are, and finite.

    Raises:
        ContractError: ``"NaN isolation"``.
    """
    with guarded(NAN_ISOLATION, f"running {subject.name} on NaN"), torch.no_grad():
        x = subject.signal(QUANTA, seed=17)
        before = subject.forward(x)
        for value in (torch.nan, torch.inf):
            hurt = {port: tensor.clone() for port, tensor in x.items()}
            for port, count in subject.block.consumes.items():
                hurt[port][ROW, :, count * 2 : count * 3] = value
            after = subject.forward(hurt)
            for port, tensor in _others(after).items():
                if not bool(tensor.isfinite().all()) and bool(_others(before)[port].isfinite().all()):
                    raise ContractError(
                        NAN_ISOLATION,
                        f"{value} in row {ROW} made '{port}' of another row not finite: select rows with "
                        "torch.where, never by multiplying with a mask",
                    )
            require_close(
                NAN_ISOLATION,
                _others(after),
                _others(before),
                subject.tolerance,
                f"{value} in row {ROW} changed a row beside it",
                "compute each row by itself",
            )


def _with_row(x: Ports, other: Ports) -> Ports:
    changed = {port: tensor.clone() for port, tensor in x.items()}
    for port, tensor in changed.items():
        tensor[ROW] = other[port][ROW]
    return changed


def _repeated(ports: Ports, rows: int) -> Ports:
    return {port: tensor[torch.arange(rows) % BATCH] for port, tensor in ports.items()}


def _others(y: Ports) -> Ports:
    kept = [row for row in range(BATCH) if row != ROW]
    return rows_of(y, kept)
