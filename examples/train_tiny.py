# %% [markdown]
# # Train a tiny recipe, then stream it
#
# A graph is a PyTorch module: `graph(x)` runs the whole sequence, gradients flow, the optimiser is PyTorch's. What has
# been trained then streams, with the same numbers: there is one implementation of every block, and both modes run it.
#
# The task: tones that come and go, in white noise. The network has to take the noise away without looking ahead; its
# latency is one frame of 2.5 ms, less one sample.
#
#     python examples/train_tiny.py               # about 20 s on one core
#     python examples/train_tiny.py --steps 20    # to see it run

# %%
from __future__ import annotations

import argparse

import torch
from torch import Tensor

import astrape

RATE = 16000
RECIPE = {
    "recipe": "tiny-denoiser",
    "inputs": {"mic": {"rate": RATE, "channels": 1}},
    "blocks": {
        "frames": {"use": "downsample", "factor": 40, "channels": 64},  # 16 kHz to 400 Hz
        "bend": {"use": "activation", "kind": "silu"},
        "memory": {"use": "gru", "channels": 64},
        "out": {"use": "transposed_conv", "kernel": 80, "stride": 40, "channels": 1},  # and back
    },
    "outputs": {"wav": "out"},
}


# %% [markdown]
# Data that needs no download: two tones a sequence, each with a slow envelope.


# %%
def tones(batch: int, seconds: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy and clean tones, `(batch, 1, frames)` each, at 0 dB."""
    time = torch.arange(int(seconds * RATE)) / RATE

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 2, 1, generator=generator)

    envelope = torch.sin(torch.pi * (draw(1, 4) * time + draw(0, 1))).clamp(min=0)
    clean = (envelope * torch.sin(2 * torch.pi * (draw(100, 800) * time + draw(0, 1)))).mean(dim=1, keepdim=True)
    noise = torch.randn(clean.shape, generator=generator)
    return clean + noise * clean.pow(2).mean(dim=-1, keepdim=True).sqrt(), clean


def snr_db(estimate: Tensor, clean: Tensor) -> float:
    return float(10 * torch.log10(clean.pow(2).sum() / (estimate - clean).pow(2).sum()))


# %%
parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=350)
steps = parser.parse_known_args()[0].steps

torch.manual_seed(0)
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(1)
graph = astrape.compile(RECIPE)
print(graph.report())

# %% [markdown]
# The loop that PyTorch users know.

# %%
optimiser = torch.optim.Adam(graph.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=6e-3, total_steps=steps + 1)
graph.train()
for step in range(steps):
    noisy, clean = tones(16, 0.5, generator)
    loss = (graph(noisy) - clean).pow(2).mean() / clean.pow(2).mean()
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(graph.parameters(), 1.0)
    optimiser.step()
    schedule.step()
    if step % 50 == 0 or step == steps - 1:
        print(f"step {step:4d}  error to signal {loss.item():.3f}")

# %% [markdown]
# The same graph, live: 5 ms at a time, and any other way of cutting gives the same.

# %%
graph.eval()
noisy, clean = tones(1, 4.0, torch.Generator().manual_seed(2))
with torch.no_grad():
    whole = graph(noisy)
session = graph.stream()
pieces = [session.push(piece) for piece in noisy.split(80, dim=-1)]
live = torch.cat(pieces, dim=-1)
apart = float((live - whole).abs().max())
print(f"signal to noise: {snr_db(noisy, clean):.1f} dB in, {snr_db(live, clean):.1f} dB out")
print(f"streaming against the whole sequence: at most {apart:.1e} apart")
print(f"a host waits {graph.host_samples} samples, {float(graph.host_latency) * 1000:.2f} ms")
assert apart < 1e-4

# %% [markdown]
# Weights are an ordinary `state_dict`; `astrape.load(recipe, weights="tiny.safetensors")` takes what
# `safetensors.torch.save_file(graph.state_dict(), "tiny.safetensors")` wrote.
