"""Numbers: the dtype that comes in goes out, float32 stays close to float64, and silence stays silent and finite."""

from __future__ import annotations

import torch

from astrape.blocks.state import state_leaves
from astrape.errors import ContractError
from astrape.measure.causality import gradient
from astrape.measure.compare import guarded
from astrape.measure.subject import Ports, Subject

__all__ = ["DEVICE", "FINITE", "PRECISION", "check_device", "check_finite", "check_precision"]

PRECISION = "precision"
"""Name of the property: every dtype goes in and out as itself, computed as precisely as it can be."""

FINITE = "finite"
"""Name of the property: silence, whispers and full scale give finite outputs and finite gradients."""

DEVICE = "device"
"""Name of the property: the block runs where its input is, with equal results."""

FLOAT32_TOLERANCE = 1e-3
"""Greatest difference of float32 from float64, relative to the larger of 1 and the greatest value."""

FLIPPED = 0.01
"""Part of the values that may differ by more: a quantizer at a boundary flips with the last bit."""

QUANTA = 16


def check_precision(subject: Subject) -> None:
    """float32 in, float32 out and close to float64; float64 in, float64 out, and truly computed in it.

    Raises:
        ContractError: ``"precision"``.
    """
    with guarded(PRECISION, f"running {subject.name}"):
        single = subject.again(dtype=torch.float32)
        with torch.no_grad():
            quanta = max(3, min(QUANTA, 8192 // max(subject.block.consumes.values())))
            x = subject.signal(quanta, seed=21)
            # Both see the same numbers: those that float32 holds.
            x = {port: tensor.float().double() for port, tensor in x.items()}
            narrow, narrow_state = _run(single, {port: tensor.float() for port, tensor in x.items()})
            wide, _ = _run(subject, x)
        for run, y, dtype in (("float32", narrow, torch.float32), ("float64", wide, torch.float64)):
            for port, tensor in y.items():
                if tensor.dtype != dtype:
                    raise ContractError(PRECISION, f"{run} in gave '{port}' in {tensor.dtype}: return that of x")
        for (path, leaf), (_, started) in zip(state_leaves(narrow_state), state_leaves(single.fresh()), strict=True):
            if leaf.dtype != started.dtype:
                raise ContractError(PRECISION, f"{path} went from {started.dtype} to {leaf.dtype} in a float32 run")
        for port, want in wide.items():
            error = (narrow[port].double() - want).abs().nan_to_num(nan=torch.inf)
            allowed = FLOAT32_TOLERANCE * max(1.0, float(want.abs().max()))
            off = float((error > allowed).double().mean())
            if off > FLIPPED:
                raise ContractError(
                    PRECISION,
                    f"{off:.1%} of '{port}' in float32 is further than {allowed:.3g} from float64 (at most "
                    f"{float(error.max()):.3g}; {FLIPPED:.0%} may be, for flipped codes): compute sums and phases "
                    "wider",
                )
        _require_wide_inside(subject, x)


def check_finite(subject: Subject) -> None:
    """No silence, onset from silence, whisper or full-scale square wave gives NaN or infinity, forward or backward.

    Raises:
        ContractError: ``"finite"``.
    """
    with guarded(FINITE, f"running {subject.name}"):
        noise = subject.signal(8, seed=22)
        trials = {
            "silence": {port: torch.zeros_like(tensor) for port, tensor in noise.items()},
            "a whisper of 1e-20": {port: tensor * 1e-20 for port, tensor in noise.items()},
            "a full-scale square wave": {port: tensor.sign() for port, tensor in noise.items()},
            "noise after silence": {
                port: torch.cat([torch.zeros_like(t)[..., : t.shape[-1] // 2], t[..., t.shape[-1] // 2 :]], dim=-1)
                for port, t in noise.items()
            },
        }
        for what, signal in trials.items():
            x = {port: tensor.clone().requires_grad_() for port, tensor in signal.items()}
            with torch.enable_grad():
                y = subject.forward(x)
                slopes = gradient(y, x)
            for label, tensors in (("output", y), ("gradient to input", slopes)):
                for port, tensor in tensors.items():
                    if not bool(tensor.isfinite().all()):
                        raise ContractError(
                            FINITE,
                            f"{what} gives a {label} '{port}' that is not finite: add a floor under logarithms, "
                            "roots and divisors",
                        )


def check_device(subject: Subject) -> None:
    """Float32 on an accelerator, where there is one, gives what it gives on the CPU, and the state lives there.

    Raises:
        ContractError: ``"device"``.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for device in (name for name, usable in there.items() if usable):
        with guarded(DEVICE, f"running {subject.name} on {device}"), torch.no_grad():
            near, far = subject.again(dtype=torch.float32), subject.again(dtype=torch.float32, device=device)
            want, _ = _run(near, near.signal(8, seed=23))
            got, state = _run(far, far.signal(8, seed=23))
            for path, leaf in state_leaves(state):
                if leaf.device.type != device:
                    raise ContractError(DEVICE, f"{path} is on {leaf.device} in a run on {device}: follow the input")
            for port, tensor in got.items():
                error = (tensor.cpu() - want[port]).abs()
                off = float((error > FLOAT32_TOLERANCE * max(1.0, float(want[port].abs().max()))).double().mean())
                if off > FLIPPED:
                    raise ContractError(DEVICE, f"'{port}' on {device} is off by up to {float(error.max()):.3g}")


def _run(subject: Subject, x: Ports) -> tuple[Ports, object]:
    quanta = min(tensor.shape[-1] // subject.block.consumes[port] for port, tensor in x.items())
    return subject.run(x, [1, quanta - 1], subject.fresh(), subject.prepared())


def _require_wide_inside(subject: Subject, x: Ports) -> None:
    """A float64 run in which values pass through float32 does not answer changes that only float64 can hold.

    The slope along a random direction is taken over a step of 1e-4 and over one of 1e-9. Over the first, rounding to
    float32 hardly shows; over the second, hardly anything else does. Only where the first agrees with the gradient does
    the second say something: a quantizer's steps are coarser than both.
    """
    generator = torch.Generator().manual_seed(24)
    along = {port: torch.randn(t.shape, generator=generator, dtype=t.dtype) for port, t in x.items()}
    with torch.enable_grad():
        leaves = {port: tensor.clone().requires_grad_() for port, tensor in x.items()}
        y = subject.forward(leaves)
        slopes = gradient(y, leaves)
    expected = sum(float((slopes[port] * along[port]).sum()) for port in x)
    weights = {}
    seeds = torch.Generator().manual_seed(7)
    for port, tensor in y.items():
        if tensor.requires_grad:
            weights[port] = 1 + torch.rand(tensor.shape, generator=seeds, dtype=tensor.dtype)

    def slope(step: float) -> float:
        with torch.no_grad():
            ahead = subject.forward({port: tensor + step * along[port] for port, tensor in x.items()})
            return sum(float(((ahead[port] - y[port]) * weight).sum()) for port, weight in weights.items()) / step

    scale = abs(expected)
    if scale > 1e-3 and abs(slope(1e-4) - expected) < 0.05 * scale and abs(slope(1e-9) - expected) > 0.2 * scale:
        raise ContractError(
            PRECISION,
            f"in float64 a change of 1e-9 of the input moves the output by {slope(1e-9):.4g} per unit where the "
            f"gradient says {expected:.4g}: something inside is rounded to float32, so follow the input's dtype",
        )
