"""One function in two modes: ``step`` over any chunks equals ``forward``, and nothing on the right changes the left."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from astrape.blocks.state import clone_state, state_leaves
from astrape.errors import ContractError
from astrape.measure.causality import gradient
from astrape.measure.compare import guarded, identical, require_close
from astrape.measure.subject import BATCH, Subject, concatenate
from astrape.testing.kinds import check_doubling, check_kinds_of_input, check_sizes
from astrape.testing.states import require_own_memory
from astrape.testing.strategies import chunkings

__all__ = [
    "EMPTY_STEP",
    "GRADIENTS",
    "RIGHT_PADDING",
    "SNAPSHOT",
    "STEP_EQUALS_FORWARD",
    "check_empty_step",
    "check_gradients",
    "check_right_padding",
    "check_snapshot",
    "check_step_equals_forward",
]

STEP_EQUALS_FORWARD = "step equals forward"
"""Name of the property: step by step over any chunks of whole quanta gives what the full-sequence pass gives."""

EMPTY_STEP = "empty step"
"""Name of the property: a step of no quanta yields no frames and leaves the state as it was."""

RIGHT_PADDING = "right padding"
"""Name of the property: a longer input keeps the outputs of the shorter one, and ``output_lengths`` counts them."""

SNAPSHOT = "snapshot"
"""Name of the property: a state copied, or saved and loaded, goes on exactly where it was taken."""

GRADIENTS = "gradients"
"""Name of the property: gradients through chained steps equal those of the full-sequence pass."""


def tail_quanta(subject: Subject) -> int:
    """Quanta that are cut in every way: few enough to step through them one by one, often."""
    return max(5, min(20, 4096 // max(subject.block.consumes.values())))


def lead_quanta(subject: Subject) -> int:
    """Quanta before those, so that rings have wrapped and windows are full: the receptive field, or part of it."""
    reach = subject.reach()
    return min(reach + 3, 600) if reach is not None else max(40, subject.memory() + 3)


def check_step_equals_forward(subject: Subject, examples: int = 25) -> None:
    """Chunkings drawn by Hypothesis, from time zero and from a late start, give the frames that ``forward`` gives.

    So do chunks of every size, chunks up to what a session runs at once, and those over silence, clicks, whispers and
    thunder. The search is derandomised: the same block meets the same chunkings every time, and a failure comes back as
    the simplest chunking that still fails.

    Raises:
        ContractError: ``"step equals forward"``.
    """
    tail, lead = tail_quanta(subject), lead_quanta(subject)
    hint = (
        "carry everything that outputs still need in the state, decide nothing by what one call happens to hold, and "
        "let forward derive from step"
    )
    with guarded(STEP_EQUALS_FORWARD, f"running {subject.name}"), subject.inference():
        x, prepared = subject.signal(lead + tail, seed=3), subject.prepared()
        whole = subject.forward(x)
        _, late = subject.run(x, [lead], subject.fresh(), prepared)

        def compare(chunks: list[int], start: int) -> None:
            state = clone_state(late) if start else subject.fresh()
            y, _ = subject.run(x, chunks, state, prepared, start)
            require_close(
                STEP_EQUALS_FORWARD,
                y,
                subject.cut_output(whole, start, start + sum(chunks)),
                subject.tolerance,
                f"chunks of {chunks} quanta, from quantum {start}, differ from forward",
                f"{hint} (if it differs in the eighth digit only, tables were rounded to float32 when the block was "
                "built, each in its own way: rebuild them on conversion, or build the block under "
                "torch.set_default_dtype(torch.float64))",
            )

        for chunks in ([tail], [1] * tail, [1, tail - 1], [tail - 1, 1], [2, 1] * (tail // 3)):
            compare(chunks, 0)
            compare(chunks, lead)
        compare([1, lead + tail - 1], 0)

        @settings(
            max_examples=max(1, examples),
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(chunks=chunkings(tail), start=st.sampled_from((0, lead)))
        def drawn(chunks: list[int], start: int) -> None:
            compare([count for count in chunks if count], start)

        if examples > 0:
            drawn()
        check_kinds_of_input(subject, STEP_EQUALS_FORWARD, hint)
        check_sizes(subject, STEP_EQUALS_FORWARD, hint)
        check_doubling(subject, STEP_EQUALS_FORWARD, hint)


def check_empty_step(subject: Subject) -> None:
    """A step of no quanta, at time zero and later, yields no frames and an equal state.

    Raises:
        ContractError: ``"empty step"``.
    """
    with guarded(EMPTY_STEP, f"a step of {subject.name} on zero quanta"), torch.no_grad():
        x, prepared, state = subject.signal(4), subject.prepared(), subject.fresh()
        for at in (0, 2):
            y, after = subject.step(subject.cut(x, at, at), state, prepared)
            for port, stream in subject.block.outputs.items():
                if tuple(y[port].shape) != (BATCH, stream.channels, 0):
                    raise ContractError(
                        EMPTY_STEP,
                        f"zero quanta gave '{port}' as {tuple(y[port].shape)}: return {(BATCH, stream.channels, 0)}",
                    )
            for (path, old), (_, new) in zip(state_leaves(state), state_leaves(after), strict=True):
                if not identical(old, new):
                    raise ContractError(EMPTY_STEP, f"zero quanta changed {path}: return the state as it came")
            require_own_memory(subject, after, y, "after a step of no quanta")
            if at == 0:
                _, state = subject.run(x, [2], state, prepared)


def check_right_padding(subject: Subject, *, partial: bool = False) -> None:
    """``forward`` on a prefix of any length gives a prefix of its output, as long as ``output_lengths`` says.

    Args:
        subject: the block.
        partial: quanta may yield a part of their frames early, as those of a graph do; otherwise a quantum that is not
            whole yields nothing.

    Raises:
        ContractError: ``"right padding"``.
    """
    block, quanta = subject.block, 5
    with guarded(RIGHT_PADDING, f"running {subject.name}"), torch.no_grad():
        whole_x = subject.signal(quanta, seed=4)
        whole = subject.forward(whole_x)
        lone = next(iter(block.consumes.values())) if len(block.consumes) == 1 else None
        for kept in (0, 1, quanta - 1):
            for odd in sorted({odd for odd in (0, 1, lone // 2, lone - 1) if odd < lone} if lone else {0}):
                x = {p: t[..., : kept * block.consumes[p] + odd] for p, t in whole_x.items()}
                y = subject.forward(x)
                frames = next(iter(x.values())).shape[-1]
                counted: Any = block.output_lengths(torch.tensor([frames]))
                for port, tensor in y.items():
                    own = int((counted[port] if isinstance(counted, Mapping) else counted)[0])
                    least = kept * block.produces[port]
                    if own != least and not (partial and least <= own <= least + block.produces[port]):
                        raise ContractError(
                            RIGHT_PADDING,
                            f"output_lengths says {own} for inputs of {frames} frames, which are {kept} quanta and "
                            f"{odd} frames, so {least} of '{port}'",
                        )
                    require_close(
                        RIGHT_PADDING,
                        {port: tensor},
                        {port: whole[port][..., :own]},
                        subject.tolerance,
                        f"forward on the first {frames} frames differs from the same frames of a longer input",
                        "an output depends on how much input follows it",
                    )


def check_snapshot(subject: Subject) -> None:
    """A state copied mid-stream, and one saved and loaded, both give bitwise what the running one gives.

    Raises:
        ContractError: ``"snapshot"``.
    """
    with guarded(SNAPSHOT, f"saving or restoring a state of {subject.name}"), torch.no_grad():
        x, prepared = subject.signal(9, seed=5), subject.prepared()
        _, state = subject.run(x, [4, 1], subject.fresh(), prepared)
        copied = clone_state(state)
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        first, _ = subject.run(x, [1, 3], state, prepared, 5)
        for what, start in (("a copied", copied), ("a saved and loaded", loaded)):
            again, _ = subject.run(x, [1, 3], start, prepared, 5)
            require_close(
                SNAPSHOT, again, first, 0.0, f"{what} state went on differently", "keep all memory in the state"
            )


def check_gradients(subject: Subject) -> None:
    """Gradients to input and parameters through chained steps equal those through ``forward``.

    And what comes out is the same with gradients and without, and in inference mode, in which sessions run.

    Raises:
        ContractError: ``"gradients"``.
    """
    quanta = max(4, min(10, tail_quanta(subject)))
    _check_modes(subject, quanta)
    chunks = [1, 2, *[1] * (quanta - 3)]
    with guarded(GRADIENTS, f"differentiating {subject.name}"), torch.enable_grad():
        x = {port: tensor.requires_grad_() for port, tensor in subject.signal(quanta, seed=6).items()}
        learned = {name: p for name, p in subject.block.named_parameters() if p.requires_grad}
        leaves = {**x, **learned}
        want = gradient(subject.forward(x), leaves)
        state, prepared = subject.fresh(), subject.prepared()
        parts, at = [], 0
        for count in chunks:
            y, state = subject.step(subject.cut(x, at, at + count), state, prepared)
            parts.append(y)
            at += count
        got = gradient(concatenate(parts), leaves)
    for name in leaves:
        require_close(
            GRADIENTS,
            {name: got[name]},
            {name: want[name]},
            subject.tolerance * 10,
            f"the gradient to {name!r} through steps of {chunks} quanta differs from that through forward",
            "let gradients pass through the state: no detach, no .data, no no_grad in step",
        )


def _check_modes(subject: Subject, quanta: int) -> None:
    """Values do not depend on whether gradients are kept."""
    chunks = [1, quanta - 1]
    with guarded(GRADIENTS, f"running {subject.name} with gradients and without"):
        x = subject.signal(quanta, seed=6)
        with torch.no_grad():
            want, _ = subject.run(x, chunks, subject.fresh(), subject.prepared())
        modes: dict[str, tuple[Any, bool]] = {
            "with gradients on": (torch.enable_grad(), False),
            "where a gradient to the input is asked for": (torch.enable_grad(), True),
            "in inference mode": (torch.inference_mode(), False),
        }
        for what, (mode, asked) in modes.items():
            with mode:
                leaves = {port: tensor.clone().requires_grad_(asked) for port, tensor in x.items()}
                through_step, _ = subject.run(leaves, chunks, subject.fresh(), subject.prepared())
                faces = {"step": through_step, "forward": subject.forward(leaves)}
            for face, y in faces.items():
                got = {port: tensor.detach() for port, tensor in y.items()}
                hint = "train what will run: depend on no mode of gradients"
                require_close(GRADIENTS, got, want, subject.tolerance, f"{face} {what} gives other values", hint)
