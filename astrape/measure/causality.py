"""Look-ahead: no output of a quantum may depend on input after it, by perturbation and by gradient.

Two proofs, since each has a blind spot: a gradient does not see through a rounding, and a perturbation does not see a
dependence that the random input happens to hide.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from astrape.errors import ContractError
from astrape.measure.compare import guarded, require_close
from astrape.measure.effort import effort
from astrape.measure.subject import Ports, Subject

__all__ = [
    "LOOKAHEAD",
    "LOOKAHEAD_GRADIENT",
    "check_declared_lookahead",
    "check_lookahead",
    "check_lookahead_gradient",
    "gradient",
    "measure_lookahead",
    "seeded_forward",
]

LOOKAHEAD = "look-ahead"
"""Name of the property: no output of quantum *k* changes when input after quantum *k* does."""

LOOKAHEAD_GRADIENT = "look-ahead gradient"
"""Name of the property: no output of quantum *k* has a gradient to input after quantum *k*."""

LONGEST_CALL = 1 << 17
"""Input frames of the longest call: 3 s of audio, twice what a session runs at once."""

LONG_BUDGET = 6_000
"""Operators of one such call, of which there are four."""

HINT = "use input of the same quantum or before, or declare the look-ahead and keep the block in training"


def probe_quanta(subject: Subject) -> int:
    """Quanta of a probe: some dozens, so that dependence that appears in long chunks only has room to appear."""
    widest = max(subject.block.consumes.values())
    return max(6, min(48, 8192 // widest))


def check_lookahead(subject: Subject) -> None:
    """Change all input after quantum *k*: earlier outputs stay, in ``forward`` and in ``step``, in both modes.

    In training mode the random generator starts equally both times, so that dropout drops the same.

    Raises:
        ContractError: ``"look-ahead"``.
    """
    total = probe_quanta(subject)
    x, other = subject.signal(total, seed=1), subject.signal(total, seed=2)
    with guarded(LOOKAHEAD, f"running {subject.name}"), torch.no_grad():
        for training in (False, True):
            subject.block.train(training)
            faces: dict[str, Callable[[Ports], Ports]] = {"forward": lambda given: seeded_forward(subject, given)}
            if not training:
                faces["step"] = lambda given: subject.step(given, subject.fresh(), subject.prepared())[0]
            for face, run in faces.items():
                before = run(x)
                for cut in sorted({1, total // 3, total // 2, total - 1}):
                    after = run(_changed(subject, x, other, cut))
                    require_close(
                        LOOKAHEAD,
                        subject.cut_output(after, 0, cut),
                        subject.cut_output(before, 0, cut),
                        subject.tolerance,
                        f"input after quantum {cut} of {total} changed an earlier output of {face}"
                        + (" in training mode" if training else ""),
                        HINT,
                    )
        subject.block.eval()
        _check_long_call(subject)


def _check_long_call(subject: Subject) -> None:
    """The same in one call as long as a file, where a block may think that it has all there is."""
    total = effort(subject, batch=1).quanta(LONG_BUDGET, LONGEST_CALL // max(subject.block.consumes.values()))
    if total <= probe_quanta(subject):
        return
    x, other = subject.signal(total, batch=1, seed=1), subject.signal(total, batch=1, seed=2)
    cut = total // 2
    changed = _changed(subject, x, other, cut)
    faces: dict[str, Callable[[Ports], Ports]] = {
        "forward": subject.forward,
        "step": lambda given: subject.step(given, subject.fresh(1), subject.prepared(1))[0],
    }
    for face, run in faces.items():
        require_close(
            LOOKAHEAD,
            subject.cut_output(run(changed), 0, cut),
            subject.cut_output(run(x), 0, cut),
            subject.tolerance,
            f"input after quantum {cut} of {total} changed an earlier output of {face} in one long call",
            HINT,
        )


def check_lookahead_gradient(subject: Subject) -> None:
    """The outputs up to quantum *k* have no gradient to any later input.

    Raises:
        ContractError: ``"look-ahead gradient"``.
    """
    total = probe_quanta(subject)
    x = {port: tensor.requires_grad_() for port, tensor in subject.signal(total, seed=1).items()}
    with guarded(LOOKAHEAD_GRADIENT, f"differentiating {subject.name}"), torch.enable_grad():
        y = subject.forward(x)
        for cut in sorted({1, total // 2, total - 1}):
            slope = gradient(subject.cut_output(y, 0, cut), x)
            for port, tensor in slope.items():
                late = tensor[..., cut * subject.block.consumes[port] :]
                if bool((late != 0).any()):
                    frame = int((late != 0).any(dim=0).any(dim=0).nonzero()[-1])
                    raise ContractError(
                        LOOKAHEAD_GRADIENT,
                        f"outputs up to quantum {cut} have a gradient of {float(late.abs().max()):.3g} to input "
                        f"'{port}' up to {frame + 1} frames after it: {HINT}",
                    )


def check_declared_lookahead(subject: Subject) -> Fraction | None:
    """A training-only block looks ahead exactly as far as it declares, and ``None`` only if that has no end.

    Raises:
        ContractError: ``"look-ahead"``.
    """
    with guarded(LOOKAHEAD, f"running {subject.name}"):
        measured = measure_lookahead(subject)
    declared = subject.block.lookahead
    if measured != declared:
        raise ContractError(
            LOOKAHEAD,
            f"{subject.name} declares a look-ahead of {_seconds(declared)} and measures {_seconds(measured)}: "
            "declare that",
        )
    return measured


def measure_lookahead(subject: Subject) -> Fraction | None:
    """Seconds past the end of its quantum that an output reaches; ``None``: to the end of the probe."""
    block = subject.block
    declared = block.lookahead
    ahead = 0 if declared is None else max(int(declared * s.rate) // block.consumes[p] for p, s in block.inputs.items())
    at, total = 4, 4 + 1 + ahead + probe_quanta(subject)
    furthest = Fraction(0)
    for seed in (1, 2):
        x = {port: tensor.requires_grad_() for port, tensor in subject.signal(total, seed=seed).items()}
        with torch.enable_grad():
            y = subject.forward(x)
            slope = gradient({port: tensor[..., : (at + 1) * block.produces[port]] for port, tensor in y.items()}, x)
        other = subject.signal(total, seed=seed + 10)
        for port, tensor in slope.items():
            end = (at + 1) * block.consumes[port]
            used = (tensor != 0).any(dim=0).any(dim=0)
            last = int(used.nonzero()[-1]) + 1 if bool(used.any()) else 0
            last = max(last, _last_by_change(subject, x, other, port, at + 1))
            if last >= total * block.consumes[port]:
                return None
            furthest = max(furthest, Fraction(last - end) / block.inputs[port].rate)
    return furthest


def gradient(y: Ports, x: Ports) -> Ports:
    """Gradient of a random projection of the outputs to the inputs: zeros where there is none at all."""
    seeds = torch.Generator().manual_seed(7)
    total: Tensor | None = None
    for tensor in y.values():
        if tensor.requires_grad:
            weight = 1 + torch.rand(tensor.shape, generator=seeds, dtype=tensor.dtype)
            term = (tensor * weight.to(tensor.device)).sum()
            total = term if total is None else total + term
    if total is None:
        return {port: torch.zeros_like(tensor) for port, tensor in x.items()}
    found = torch.autograd.grad(total, list(x.values()), retain_graph=True, allow_unused=True)
    return {port: torch.zeros_like(x[port]) if slope is None else slope for port, slope in zip(x, found, strict=True)}


def _last_by_change(subject: Subject, x: Ports, other: Ports, port: str, quanta: int) -> int:
    """One more than the last frame of ``port`` whose change alone changes outputs of the first ``quanta`` quanta."""
    start, frames = quanta * subject.block.consumes[port], x[port].shape[-1]
    plain = {name: tensor.detach() for name, tensor in x.items()}
    with torch.no_grad():
        before = subject.cut_output(subject.forward(plain), 0, quanta)

        def changes(first: int) -> bool:
            """Whether other input from a frame on changes those outputs."""
            changed = {**plain, port: torch.cat([plain[port][..., :first], other[port][..., first:]], dim=-1)}
            after = subject.cut_output(subject.forward(changed), 0, quanta)
            return not all(torch.allclose(after[name], before[name], rtol=0, atol=1e-12) for name in before)

        if not changes(start):
            return 0
        low, high = start + 1, frames
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if changes(middle) else (low, middle)
    return low


def _changed(subject: Subject, x: Ports, other: Ports, cut: int) -> Ports:
    return {
        port: torch.cat([x[port][..., : cut * count], other[port][..., cut * count :]], dim=-1)
        for port, count in subject.block.consumes.items()
    }


def seeded_forward(subject: Subject, x: Ports) -> Ports:
    """The full-sequence pass from an equal start of the random generator, for dropout in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return subject.forward(x)


def _seconds(value: Fraction | None) -> str:
    return "no bound" if value is None else f"{value} s ({float(value) * 1000:.4g} ms)"
