"""Blocks that are right most of the time: their fault shows for some inputs, sizes and lengths alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from astrape.blocks import State, StreamBlock
from tests.testing.sound_blocks import LiveGain, Memory, Smooth
from tests.testing.zoo.registry import breaks


@breaks("step equals forward")
class SilentShortcut(Smooth):
    """Takes a shortcut where nothing is heard, and leaves its memory as it was."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        if x.shape[-1] and not bool(x.any()):
            return torch.zeros_like(x), state
        return super().step(x, state, controls)


@breaks("step equals forward")
class ShortcutInPauses(Smooth):
    """The same, where nothing is heard for a while."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        if x.shape[-1] > 90 and not bool(x.any()):
            return torch.zeros_like(x), state
        return super().step(x, state, controls)


@breaks("step equals forward")
class GateOverTheCall(StreamBlock):
    """Silences what it is called with if all of it is a whisper."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x, state
        return torch.where(x.abs().amax(dim=(1, 2), keepdim=True) < 1e-4, torch.zeros_like(x), x), state


@breaks("step equals forward")
class LimiterOverTheCall(StreamBlock):
    """Turns down a call by its highest peak, which noise never reaches."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x, state
        return x * (60 / x.abs().amax(dim=(1, 2), keepdim=True)).clamp(max=1.0), state


@breaks("step equals forward")
class MeanOfTheCall(StreamBlock):
    """Takes the offset off a call where it has a large one."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x, state
        same = (x == x[..., :1]).all(dim=-1, keepdim=True) & (x.shape[-1] > 1)
        return torch.where(same, torch.zeros_like(x), x), state


@breaks("step equals forward")
class OneSizeWrong(StreamBlock):
    """Right for every chunk but one of 211 quanta."""

    size = 211

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x * (1.01 if x.shape[-1] == self.size else 1.0), state


@breaks("step equals forward")
class OneSizeForgets(Memory):
    """Right for every chunk, and wrong after one of 317 quanta."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y, after * 0.5 if x.shape[-1] == 317 else after


@breaks("look-ahead")
class PeeksInLongFiles(StreamBlock):
    """Uses the next frame in calls of more than 5000."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return (torch.cat([x[..., 1:], x[..., -1:]], dim=-1) if x.shape[-1] > 5000 else x.clone()), state


class Counted(Memory):
    """Shared: counts its steps in its state."""

    @property
    def receptive_field(self) -> None:
        return None

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        last = super().init_state(batch_size, device, dtype)
        return {"last": last, "steps": torch.zeros(batch_size, 1, 1, device=device, dtype=torch.int64)}

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        y, last = super().step(x, state["last"], controls)
        return y, {"last": last, "steps": state["steps"] + int(x.shape[-1] > 0)}


@breaks("long run")
class GrowsLate(Counted):
    """Begins to keep what it hears after a thousand steps."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        kept = torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=dtype)
        return {**super().init_state(batch_size, device, dtype), "kept": kept}

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        late = x.shape[-1] > 0 and int(after["steps"].max()) > 1000
        kept = torch.cat([state["kept"], x[..., -1:]], dim=-1) if late else state["kept"].clone()
        return y, {**after, "kept": kept}


@breaks("long run")
class TiresLate(Counted):
    """Fades after fifteen hundred steps."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y * torch.where(after["steps"] > 1500, 0.5, 1.0).to(x.dtype), after


@breaks("gradients")
class OtherWithGradients(Memory):
    """A faster way where no gradient is kept, and another result."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y * (1.001 if torch.is_grad_enabled() else 1.0), after


@breaks("gradients")
class OtherInInference(Memory):
    """A faster way in inference mode, and another result."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y * (1.001 if torch.is_inference_mode_enabled() else 1.0), after


@breaks("controls")
class GlidesByTheCall(LiveGain):
    """Goes half the way to a new value with every call, however long."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return {
            "now": torch.zeros(batch_size, 1, 1, device=device, dtype=dtype),
            "begun": torch.zeros(batch_size, 1, 1, device=device, dtype=torch.bool),
        }

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x, state
        now = torch.where(state["begun"], (state["now"] + controls["factor"]) / 2, controls["factor"])
        return x * now, {"now": now, "begun": torch.ones_like(state["begun"])}


@breaks("row isolation")
class OtherInLargeBatches(Memory):
    """A faster way for eight rows and more, and another result."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y * (1.001 if len(x) >= 8 else 1.0), after


@breaks("step equals forward")
class OtherInLongCalls(Memory):
    """A faster way for calls beyond thirty thousand frames, and another result."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y * (1.001 if x.shape[-1] > 30_000 else 1.0), after


@breaks("row isolation")
class StopsForASilentRow(StreamBlock):
    """Saves its work where a row of the batch is silent."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        silent = x.numel() > 0 and bool((x.abs().amax(dim=(1, 2)) == 0).any())
        return torch.zeros_like(x) if silent else x.clone(), state


@breaks("row isolation")
class OtherInCrowds(Memory):
    """A faster way for a hundred rows and more, and another result."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y * (1.001 if len(x) >= 100 else 1.0), after


@breaks("step equals forward")
class CentresWhatLiesBelow(StreamBlock):
    """Takes the mean out of a call that lies below zero altogether."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        below = x.shape[-1] > 3 and bool((x < -0.2).all())
        return x - x.mean(dim=-1, keepdim=True) if below else x.clone(), state


@breaks("step equals forward")
class HalvesOpposites(StreamBlock):
    """Takes a call whose channels are each other's opposites for a balanced line."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        balanced = x.shape[-1] > 1 and bool((x[:, :1] == -x[:, 1:]).all())
        return x * (0.5 if balanced else 1.0), state


@breaks("step equals forward")
class FillsADeadSide(StreamBlock):
    """Takes a call in which one channel is silent for a broken cable."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        dead = x.numel() > 0 and bool((x.abs().amax(dim=(0, 2)) == 0).any())
        return x.sum(dim=1, keepdim=True).repeat(1, x.shape[1], 1) if dead else x.clone(), state


@breaks("step equals forward")
class TurnsDownWhatWasClipped(StreamBlock):
    """Takes samples at full scale for a sign that the call was clipped."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x * (0.9 if bool((x.abs() == 1.0).any()) else 1.0), state


@breaks("step equals forward")
class LevelsRamps(StreamBlock):
    """Takes a call that only rises for a drift."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        rises = x.shape[-1] > 4 and bool((x[..., 1:] > x[..., :-1]).all())
        return x - x.mean(dim=-1, keepdim=True) if rises else x.clone(), state


@breaks("step equals forward")
class ForgetsAfterSomeSizes(Memory):
    """Right after every chunk but those of about 3100 quanta."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y, after * 0 if 3000 < x.shape[-1] < 3200 else after
