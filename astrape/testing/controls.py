"""Controls: ``prepare`` depends on its argument alone, a change acts from the next quantum on, none may be missing."""

from __future__ import annotations

from typing import Any

import torch

from astrape.blocks.state import clone_state
from astrape.errors import ContractError, StreamError
from astrape.measure.compare import guarded, identical, require_close, tensors_of
from astrape.measure.subject import Ports, Subject, concatenate

__all__ = ["CONTROLS", "check_controls"]

CONTROLS = "controls"
"""Name of the property: controls act, on later quanta only, through what ``prepare`` makes of them and nothing else."""

MOST_FRAMES = 1 << 16
"""Input frames after which a control must have shown: more than a second of audio."""

MOST_VALUES = 1 << 22
"""Values of a trial's input or output: spectra of 1538 channels are tried on fewer frames than audio of one."""


def check_controls(subject: Subject) -> None:
    """Nothing to do for a block that listens to none, save that it refuses one.

    Raises:
        ContractError: ``"controls"``.
    """
    with guarded(CONTROLS, f"the controls of {subject.name}"), torch.no_grad():
        _check_refusals(subject)
        if not subject.block.controls:
            return
        _check_prepare(subject)
        _check_change(subject)
        _check_effect(subject)


def _check_refusals(subject: Subject) -> None:
    x = subject.given(subject.signal(1))
    values = subject.values()
    trials: dict[str, dict[str, Any]] = {"an unknown one": {**values, "no_such_control": 1.0}}
    # A graph may give its controls defaults; a block has none.
    specs = getattr(subject.block, "control_specs", {})
    needed = [name for name in values if getattr(specs.get(name), "default", None) is None]
    trials |= {f"'{name}' missing": {k: v for k, v in values.items() if k != name} for name in needed}
    for what, given in trials.items():
        try:
            subject.block(x, **given)
        except StreamError:
            continue
        except Exception as error:
            found = f"{type(error).__name__} ({error})"
            raise ContractError(CONTROLS, f"{what} raised {found}: raise a StreamError") from error
        raise ContractError(CONTROLS, f"{what} was silently accepted: let read_controls check them")


def _check_prepare(subject: Subject) -> None:
    """``prepare`` gives equal things for equal values, whatever was prepared before, on this block or another."""
    block = subject.block
    first = [(path, t.clone()) for path, t in tensors_of(block.prepare(subject.values()), "prepared")]
    other = [(path, t.clone()) for path, t in tensors_of(block.prepare(subject.values(setting=1)), "prepared")]
    again = list(tensors_of(block.prepare(subject.values()), "prepared"))
    anew = list(tensors_of(subject.again().block.prepare(subject.values(setting=1)), "prepared"))
    for what, got, want in (("again, after another setting", again, first), ("on a fresh block", anew, other)):
        for (path, mine), (_, theirs) in zip(got, want, strict=True):
            if not identical(mine, theirs):
                raise ContractError(
                    CONTROLS,
                    f"prepare of the same values {what} gave another {path}: let it depend on its argument alone",
                )


def _check_change(subject: Subject) -> None:
    x, hint = subject.signal(8, seed=18), "let step read its controls from its argument alone"
    before, state = subject.run(x, [4], subject.fresh(), subject.prepared())
    kept = clone_state(state)
    later, _ = subject.run(x, [1, 3], state, subject.prepared(setting=1), 4)
    whole, _ = subject.run(x, [8], subject.fresh(), subject.prepared())
    anew = subject.again()
    want, _ = anew.run(x, [1, 3], kept, anew.prepared(setting=1), 4)
    what = "a control changed after quantum 4 changed quanta before it"
    require_close(CONTROLS, before, subject.cut_output(whole, 0, 4), subject.tolerance, what, hint)
    what = "a changed control gives something else than in a block that never had another"
    require_close(CONTROLS, later, want, subject.tolerance, what, hint)
    _check_way(subject)


def _check_way(subject: Subject) -> None:
    """Controls that change again and again take the same way in any chunks: glides go by frames, and not by calls."""
    x, hint = subject.signal(24, seed=20), "let controls glide by frames, and not once per call"
    prepared = [subject.prepared(setting=setting) for setting in (0, 1)]

    def run(sizes: list[int]) -> Ports:
        state, parts, at = subject.fresh(), [], 0
        for number, until in enumerate((5, 6, 14, 24)):
            turn = 0
            while at < until:
                count = min(sizes[turn % len(sizes)], until - at)
                y, state = subject.run(x, [count], state, prepared[number % 2], at)
                parts.append(y)
                at, turn = at + count, turn + 1
        return concatenate(parts)

    want = run([24])
    for sizes in ([1], [2, 1], [3], [0, 5, 2]):
        what = f"controls that change after quanta 5, 6 and 14 come out differently in chunks of {sizes} quanta"
        require_close(CONTROLS, run(sizes), want, subject.tolerance, what, hint)


def _check_effect(subject: Subject) -> None:
    """Another value of each control gives another output: soon, or after as long as a delay may hold it back."""
    block = subject.block
    # A quantum may be a number and come out as 40 ms of sound.
    taken = (count * block.inputs[port].channels for port, count in block.consumes.items())
    given = (count * block.outputs[port].channels for port, count in block.produces.items())
    wide = max(*taken, *given)
    most = max(12, min(MOST_FRAMES // max(block.consumes.values()), MOST_VALUES // wide))
    lengths = sorted({12, min(most, 512), most})
    for name in block.controls:
        values = subject.values()
        changed = {**values, name: subject.values(setting=1)[name]}
        trials = (signal(subject, quanta) for quanta in lengths for signal in (_noise, _voice, _whisper))
        if not any(_differ(subject, values, changed, x) for x in trials):
            raise ContractError(
                CONTROLS,
                f"'{name}' at {values[name].flatten()[0]:.4g} and at {changed[name].flatten()[0]:.4g} gives the same "
                "output: use it, or do not declare it (or give two settings under which it acts, or a draw that makes "
                "input on which it does)",
            )


def _noise(subject: Subject, quanta: int) -> Ports:
    return subject.signal(quanta, seed=19)


def _whisper(subject: Subject, quanta: int) -> Ports:
    return {port: 0.003 * tensor for port, tensor in subject.signal(quanta, seed=19).items()}


def _voice(subject: Subject, quanta: int) -> Ports:
    """A hum of 120 Hz with all its harmonics, on a little of the noise: what a pitch or a voicing can be found in."""
    x = subject.signal(quanta, seed=19)
    for port, tensor in x.items():
        turns = torch.arange(tensor.shape[-1], dtype=torch.float64) * (120 / float(subject.block.inputs[port].rate))
        x[port] = 0.01 * tensor + (turns % 1 - 0.5).to(tensor)
    return x


def _differ(subject: Subject, values: Ports, changed: Ports, x: Ports) -> bool:
    first = subject.by_port(subject.block(subject.given(x), **values))
    second = subject.by_port(subject.block(subject.given(x), **changed))
    return any(not identical(first[port], second[port]) for port in first)
