"""MioCodec and WavLM written out over state dicts: a frame, tap or query at a time where that is bearable.

Nothing here is shared with astrape: layers are loops and sums.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.training.miocodec_tensors import KERNELS, State


class Oracle:
    """A codec of some sizes over its state, and that of WavLM."""

    def __init__(self, sizes: dict[str, Any], state: State, wavlm: State, dtype: torch.dtype = torch.float64) -> None:
        self.sizes = sizes
        self.state = {name: value.to(dtype) for name, value in state.items()}
        self.heard = {name: value.to(dtype) for name, value in wavlm.items()}
        self.dtype = dtype

    def encode(self, audio: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Content ``(frames, width)``, its steps before rounding ``(frames, axes)``, and the speaker's embedding."""
        layers = self.layers(audio)
        mix = sum(layers[at - 1] for at in self.sizes["content_layers"]) / len(self.sizes["content_layers"])
        frames = mix.shape[0]
        mean = mix.sum(0) / frames
        spread = ((mix - mean) ** 2).sum(0).div(frames - 1).sqrt()
        x = self._transformer("local_encoder", "local", (mix - mean) / (spread + 1e-8))
        x = conv(x, self.state["conv_downsample.weight"], self.state["conv_downsample.bias"], 2, 0)
        z = linear(x, self.state, "local_quantizer.proj_in")
        levels = torch.tensor(self.sizes["levels"], dtype=self.dtype)
        reach = (levels - 1) * 0.999 / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0).to(self.dtype)
        steps = torch.tanh(z + torch.tan(offset / reach)) * reach - offset
        content = linear(steps.round() / (levels // 2), self.state, "local_quantizer.proj_out")
        mix = sum(layers[at - 1] for at in self.sizes["speaker_layers"]) / len(self.sizes["speaker_layers"])
        return content, steps, self._speaker(mix)

    def codes(self, steps: Tensor) -> list[int]:
        """The number of each frame's point, digit by digit."""
        numbers = []
        for frame in steps.round().long().tolist():
            number, place = 0, 1
            for digit, level in zip(frame, self.sizes["levels"], strict=True):
                number += (digit + level // 2) * place
                place *= level
            numbers.append(number)
        return numbers

    def decode(self, content: Tensor, speaker: Tensor, samples: int) -> np.ndarray:
        """Audio of content ``(frames, width)`` in a voice."""
        content, speaker = content.to(self.dtype), speaker.to(self.dtype)
        x = self._transformer("wave_prenet", "prenet", content)
        up = self.state["wave_conv_upsample.weight"]
        x = transposed(x, up, self.state["wave_conv_upsample.bias"], 2, 0)
        total = math.prod(factor for factor, _ in self.sizes["stages"])
        x = interpolated(x, samples // self.sizes["hop"] // total)
        for index in range(2):
            x = self._residual(f"wave_prior_net.blocks.{index}", x, self.sizes["groups"])
        x = self._transformer("wave_decoder", "wave", x, speaker)
        for index in range(2):
            x = self._residual(f"wave_post_net.blocks.{index}", x, self.sizes["groups"])
        for index, (factor, kernel) in enumerate(self.sizes["stages"]):
            name = f"wave_upsampler.upsample_layers.{index}"
            direction = self.state[f"{name}.parametrizations.weight.original1"]
            size = self.state[f"{name}.parametrizations.weight.original0"]
            weight = torch.stack([size[at] * direction[at] / direction[at].norm() for at in range(len(size))])
            x = transposed(x, weight, self.state[f"{name}.bias"], factor, (kernel - factor) // 2)
            x = self._snake(f"wave_upsampler.snake_activations.{index}", x)
            x = self._residual(f"wave_upsampler.resnet_blocks.{index}", x, min(self.sizes["groups"], x.shape[1]))
        x = self._snake("wave_upsampler.out_snake", linear(x, self.state, "wave_upsampler.out_proj"))
        spectrum = linear(x, self.state, "istft_head.out").numpy()
        return self._synthesised(spectrum)

    def layers(self, audio: np.ndarray) -> list[Tensor]:
        """Outputs of WavLM's first nine layers for audio at the codec's rate."""
        rate = self.sizes["rate"]
        frames = math.ceil(len(audio) / rate * 16000 / 320)
        margin = math.ceil(((320 * (frames - 1) + 400) / 16000 * rate - len(audio)) / 2)
        padded = np.concatenate((np.zeros(margin), audio.astype(np.float64), np.zeros(margin)))
        return self._wavlm(torch.from_numpy(resampled(padded, rate, 16000)).to(self.dtype))

    def _transformer(self, root: str, name: str, x: Tensor, condition: Tensor | None = None) -> Tensor:
        own = self.sizes[name]
        for index in range(own["layers"]):
            at = f"{root}.layers.{index}"
            normed, gate = self._norm(f"{at}.attention_norm", x, condition)
            x = x + gate * self._attention(at, normed, own["heads"], own["window"])
            normed, gate = self._norm(f"{at}.ffn_norm", x, condition)
            first, third = (normed @ self.state[f"{at}.feed_forward.{w}.weight"].T for w in ("w1", "w3"))
            x = x + gate * ((first * torch.sigmoid(first) * third) @ self.state[f"{at}.feed_forward.w2.weight"].T)
        x, _ = self._norm(f"{root}.norm", x, condition)
        return linear(x, self.state, f"{root}.output_proj") if "out" in own else x

    def _norm(self, name: str, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | float]:
        if condition is None:
            return layer_norm(x, self.state, name, 1e-5), 1.0
        steer = linear(condition * torch.sigmoid(condition), self.state, f"{name}.condition_proj.1")
        dim = x.shape[1]
        normed = standard(x, 1e-5) * (1 + steer[dim : 2 * dim]) + steer[:dim]
        return normed, steer[2 * dim :] if len(steer) > 2 * dim else 1.0

    def _attention(self, at: str, x: Tensor, heads: int, window: int) -> Tensor:
        frames, dim = x.shape
        width = dim // heads
        query, key, value = (x @ self.state[f"{at}.attention.{name}.weight"].T for name in ("wq", "wk", "wv"))
        out = torch.zeros_like(x)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            q, k = (turned(one[:, part], self.sizes["theta"]) for one in (query, key))
            for frame in range(frames):
                near = slice(max(0, frame - window // 2), frame + window // 2 + 1)
                weights = torch.softmax(k[near] @ q[frame] / math.sqrt(width), dim=0)
                out[frame, part] = weights @ value[near, part]
        return out @ self.state[f"{at}.attention.wo.weight"].T

    def _speaker(self, x: Tensor) -> Tensor:
        state, root = self.state, "global_encoder.backbone"
        x = conv(x, state[f"{root}.embed.weight"], state[f"{root}.embed.bias"], 1, 3)
        x = layer_norm(x, state, f"{root}.norm", 1e-6)
        for index in range(self.sizes["speaker"]["layers"]):
            at = f"{root}.convnext.{index}"
            taps = state[f"{at}.dwconv.weight"][:, 0]
            padded = torch.nn.functional.pad(x, (0, 0, 3, 3))
            y = sum(padded[tap : tap + len(x)] * taps[:, tap] for tap in range(7)) + state[f"{at}.dwconv.bias"]
            y = gelu(linear(layer_norm(y, state, f"{at}.norm", 1e-6), state, f"{at}.pwconv1"))
            x = x + state[f"{at}.gamma"] * linear(y, state, f"{at}.pwconv2")
        x = layer_norm(x, state, f"{root}.final_layer_norm", 1e-6)
        root = "global_encoder.pooling"
        scores = torch.tanh(conv(x, state[f"{root}.attn.0.weight"], state[f"{root}.attn.0.bias"], 1, 0))
        scores = conv(scores, state[f"{root}.attn.2.weight"], state[f"{root}.attn.2.bias"], 1, 0)
        weights = scores.exp() / scores.exp().sum(0)
        mean = (weights * x).sum(0)
        variance = ((weights * x * x).sum(0) - mean * mean).clip(1e-4, 1e4)
        pooled = linear(torch.cat((mean, variance.sqrt())), state, f"{root}.proj")
        return layer_norm(pooled[None], state, f"{root}.norm", 1e-5)[0]

    def _residual(self, at: str, x: Tensor, groups: int) -> Tensor:
        y = x
        for index in (1, 2):
            grouped = y.reshape(len(y), groups, -1)
            mean = grouped.mean((0, 2), keepdim=True)
            variance = ((grouped - mean) ** 2).mean((0, 2), keepdim=True)
            y = ((grouped - mean) / (variance + 1e-6).sqrt()).reshape(y.shape)
            y = y * self.state[f"{at}.norm{index}.weight"] + self.state[f"{at}.norm{index}.bias"]
            y = conv(
                y * torch.sigmoid(y), self.state[f"{at}.conv{index}.weight"], self.state[f"{at}.conv{index}.bias"], 1, 1
            )
        return x + y

    def _snake(self, name: str, x: Tensor) -> Tensor:
        alpha, beta = self.state[f"{name}.alpha"].exp(), self.state[f"{name}.beta"].exp()
        return x + torch.sin(alpha * x) ** 2 / (beta + 1e-9)

    def _synthesised(self, spectrum: np.ndarray) -> np.ndarray:
        size, hop = self.sizes["n_fft"], self.sizes["hop"]
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        audio = np.zeros((len(spectrum) - 1) * hop + size)
        heard = np.zeros_like(audio)
        for index, frame in enumerate(spectrum.astype(np.float64)):
            magnitude, phase = np.minimum(np.exp(frame[: size // 2 + 1]), 100.0), frame[size // 2 + 1 :]
            at = slice(index * hop, index * hop + size)
            audio[at] += np.fft.irfft(magnitude * np.exp(1j * phase), size) * window
            heard[at] += window**2
        side = (size - hop) // 2
        return audio[side:-side] / heard[side:-side]

    def _wavlm(self, audio: Tensor) -> list[Tensor]:
        state, own = self.heard, self.sizes["wavlm"]
        x = audio[:, None]
        for index, (_, stride) in enumerate(KERNELS):
            at = f"feature_extractor.conv_layers.{index}"
            x = conv(x, state[f"{at}.conv.weight"], None, stride, 0)
            if index == 0:
                mean = x.mean(0)
                x = (x - mean) / (((x - mean) ** 2).mean(0) + 1e-5).sqrt()
                x = x * state[f"{at}.layer_norm.weight"] + state[f"{at}.layer_norm.bias"]
            x = gelu(x)
        x = layer_norm(x, state, "encoder.feature_projection.layer_norm", 1e-5)
        x = linear(x, state, "encoder.feature_projection.projection")
        root = "encoder.transformer"
        direction = state[f"{root}.pos_conv_embed.conv.weight_v"]
        size = state[f"{root}.pos_conv_embed.conv.weight_g"]
        weight = torch.stack(
            [size[0, 0, tap] * direction[..., tap] / direction[..., tap].norm() for tap in range(own["taps"])], dim=-1
        )
        position = [
            conv(part, weight[at : at + part.shape[1]], None, 1, own["taps"] // 2)
            for at, part in ((g * own["dim"] // own["groups"], p) for g, p in enumerate(x.chunk(own["groups"], 1)))
        ]
        x = x + gelu(torch.cat(position, 1)[: len(x)] + state[f"{root}.pos_conv_embed.conv.bias"])
        x = layer_norm(x, state, f"{root}.layer_norm", 1e-5)
        embedded = state[f"{root}.layers.0.attention.rel_attn_embed.weight"]
        row = [bucket(distance, own["buckets"], 800) for distance in range(-len(x) + 1, len(x))]
        biases = torch.stack([embedded[row[len(x) - 1 - q : 2 * len(x) - 1 - q]] for q in range(len(x))])
        found = []
        for index in range(9):
            at = f"{root}.layers.{index}"
            x = layer_norm(x + self._heard(f"{at}.attention", x, biases, own["heads"]), state, f"{at}.layer_norm", 1e-5)
            y = gelu(linear(x, state, f"{at}.feed_forward.intermediate_dense"))
            y = linear(y, state, f"{at}.feed_forward.output_dense")
            x = layer_norm(x + y, state, f"{at}.final_layer_norm", 1e-5)
            found.append(x)
        return found

    def _heard(self, at: str, x: Tensor, biases: Tensor, heads: int) -> Tensor:
        state = self.heard
        dim = x.shape[1]
        width = dim // heads
        joint = x @ state[f"{at}.attention.in_proj_weight"].T + state[f"{at}.attention.in_proj_bias"]
        out = torch.zeros_like(x)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            query, key, value = (joint[:, which * dim :][:, part] for which in range(3))
            gates = linear(x[:, part], state, f"{at}.gru_rel_pos_linear")
            first, second = torch.sigmoid(gates[:, :4].sum(1)), torch.sigmoid(gates[:, 4:].sum(1))
            gate = first * (second * state[f"{at}.gru_rel_pos_const"][0, head, 0, 0] - 1) + 2
            scores = query @ key.T / math.sqrt(width) + gate[:, None] * biases[:, :, head]
            out[:, part] = torch.softmax(scores, dim=1) @ value
        return linear(out, state, f"{at}.attention.out_proj")


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def standard(x: Tensor, eps: float) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / (((x - mean) ** 2).mean(-1, keepdim=True) + eps).sqrt()


def layer_norm(x: Tensor, state: State, name: str, eps: float) -> Tensor:
    return standard(x, eps) * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """``(frames, in)`` by ``(out, in, taps)``, tap after tap."""
    taps = weight.shape[2]
    padded = torch.nn.functional.pad(x, (0, 0, padding, padding))
    count = (len(padded) - taps) // stride + 1
    total = sum(padded[tap : tap + stride * (count - 1) + 1 : stride] @ weight[:, :, tap].T for tap in range(taps))
    return total if bias is None else total + bias


def transposed(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Each frame's ``(in)`` by ``(in, out, taps)``, laid down ``stride`` after the last."""
    taps = weight.shape[2]
    out = x.new_zeros((len(x) - 1) * stride + taps, weight.shape[1])
    for at, frame in enumerate(x):
        out[at * stride : at * stride + taps] += torch.einsum("i,iok->ko", frame, weight)
    return out[padding : len(out) - padding] + bias


def interpolated(x: Tensor, count: int) -> Tensor:
    rows = []
    for at in range(count):
        place = max((at + 0.5) * len(x) / count - 0.5, 0.0)
        low = min(int(place), len(x) - 1)
        high = min(low + 1, len(x) - 1)
        rows.append(x[low] * (1 - (place - low)) + x[high] * (place - low))
    return torch.stack(rows)


def turned(x: Tensor, theta: float) -> Tensor:
    """Pairs of channels as complex numbers, times ``exp(i frame / theta^(pair / pairs))``."""
    values = x.numpy().astype(np.float64)
    pairs = values[:, 0::2] + 1j * values[:, 1::2]
    rates = theta ** (-np.arange(pairs.shape[1]) / pairs.shape[1])
    pairs = pairs * np.exp(1j * np.arange(len(pairs))[:, None] * rates)
    out = np.empty_like(values)
    out[:, 0::2], out[:, 1::2] = pairs.real, pairs.imag
    return torch.from_numpy(out).to(x.dtype)


def resampled(audio: np.ndarray, old: int, new: int) -> np.ndarray:
    """A sinc of six zero crossings to each side under a Hann window, cut off at 0.99 of the lower rate's half."""
    rate = 0.99 * min(old, new)
    count = math.ceil(len(audio) * new / old)
    reach = math.ceil(6 * old / rate) + 1
    place = np.arange(count) * old / new
    near = np.floor(place).astype(int)[:, None] + np.arange(-reach, reach + 2)
    times = np.clip((near - place[:, None]) / old * rate, -6, 6)
    weights = np.sinc(times) * np.cos(np.pi * times / 12) ** 2 * rate / old
    inside = (near >= 0) & (near < len(audio))
    return (weights * np.where(inside, audio[np.clip(near, 0, len(audio) - 1)], 0)).sum(1)


def bucket(distance: int, buckets: int, furthest: int) -> int:
    """WavLM's class of a distance: half of the classes for each sign, half of those for single steps."""
    half = buckets // 2
    exact = half // 2
    size = abs(distance)
    if size >= exact:
        size = min(half - 1, exact + int(math.log(size / exact) / math.log(furthest / exact) * (half - exact)))
    return size + (half if distance > 0 else 0)
