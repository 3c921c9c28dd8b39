"""Long responses: convolution by partitions, and a room to convolve with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from astrape.audio.reader import AudioReader
from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.ops.dft import WindowedDFT, WindowedInverseDFT
from astrape.blocks.ops.history import own_copy
from astrape.blocks.ops.sections import second_order
from astrape.blocks.ops.tables import ExactTables, Float64
from astrape.blocks.parameters import bounded, check_elements, check_real
from astrape.blocks.policy import policy
from astrape.blocks.registry import register
from astrape.blocks.state import map_state
from astrape.errors import AudioError, RateError

__all__ = ["Convolve", "Room", "room_response"]

LONGEST = 1 << 20
"""Samples of a response: 24 s at 44.1 kHz, longer than any hall."""

QUANTA_AT_ONCE = 32
MOST_AT_ONCE = 1 << 21
"""Numbers laid out for one product: 16 MB of float64. What a batch takes beyond that is new memory with every call, and
the kernel's zeros for it were two thirds of the time."""

SOUND = 343.0
"""Metres a second, in air of 20 degrees."""

RUMBLE = 100.0


class _Partitioned(StreamBlock, ExactTables):
    """Convolution with responses of many partitions, in the frequency domain.

    With ``P`` samples a partition, a quantum: spectra of the last ``2 P`` samples of the input, one a quantum, are
    kept for as many quanta as there are partitions, and each output quantum is the sum of their products with the
    partitions' spectra, of which the last ``P`` samples are free of wrapping (overlap-save).
    """

    latency_by = "declared"

    products: Tensor

    def __init__(self, source: Stream, responses: Float64, partition: int) -> None:
        count, length = responses.shape
        bounded("partition", partition, 16, 8192)
        if length > LONGEST:
            raise ValueError(f"a response has at most {LONGEST} samples, not {length}: cut its end off")
        if count > 1 and source.channels not in (1, count):
            raise RateError(f"{count} responses fit one channel or {count}, not {source.channels}")
        super().__init__(source, quantum=partition, channels=max(source.channels, count))
        self.responses, self.length = responses, length
        self.parts = -(-length // partition)
        check_elements("the spectra of a response", count, self.parts, partition + 1, 4)
        self.dft, self.inverse = WindowedDFT(np.ones(2 * partition)), WindowedInverseDFT(np.ones(2 * partition))
        self.register_tables()

    def exact_tables(self) -> dict[str, Float64]:
        count, size = len(self.responses), self.quantum
        padded = np.pad(self.responses, ((0, 0), (0, self.parts * size - self.length)))
        # Oldest partition of the input first, which meets the last one of the response.
        spectra = np.fft.rfft(padded.reshape(count, self.parts, size)[:, ::-1], 2 * size).transpose(0, 2, 1)
        # From the real and the imaginary parts of the input's spectra to those of the output's.
        real = np.concatenate([spectra.real, -spectra.imag], axis=-1)
        imaginary = np.concatenate([spectra.imag, spectra.real], axis=-1)
        return {"products": np.stack([real, imaginary], axis=-2).reshape(-1, 2, 2 * self.parts)}

    @property
    def receptive_field(self) -> Fraction:
        """All of the frames that are transformed, in which rounding reaches a little further than the response."""
        return Fraction((self.parts + 1) * self.quantum) / self.rate_in

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        shapes = {
            "before": (self.channels_in, self.quantum),
            "spectra": (self.channels_in, 2 * self.quantum + 2, self.parts - 1),
        }
        check_elements("a state", batch_size, *shapes["spectra"])
        return {name: torch.zeros(batch_size, *shape, device=device, dtype=dtype) for name, shape in shapes.items()}

    def step(self, x: Tensor, state: dict[str, Tensor], controls: object) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x.new_zeros(x.shape[0], self.channels_out, 0), map_state(torch.clone, state)
        quanta = min(x.shape[-1] // self.quantum, QUANTA_AT_ONCE)
        rows = max(1, MOST_AT_ONCE // (self.channels_out * (self.quantum + 1) * 2 * self.parts * quanta))
        if len(x) <= rows:
            return self._rows(x, state)
        parts = {name: torch.split(tensor, rows) for name, tensor in state.items()}
        done = [
            self._rows(piece, {name: parts[name][index] for name in parts})
            for index, piece in enumerate(torch.split(x, rows))
        ]
        return torch.cat([y for y, _ in done]), map_state(lambda *pieces: torch.cat(pieces), *(s for _, s in done))

    def _rows(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A step of as many rows as are computed at once."""
        made = []
        for piece in torch.split(x, QUANTA_AT_ONCE * self.quantum, dim=-1):
            y, state = self._convolve(piece, state)
            made.append(y)
        return (torch.cat(made, dim=-1) if len(made) > 1 else made[0]), state

    def _convolve(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        batch, channels, samples = x.shape
        bins, quanta = self.quantum + 1, samples // self.quantum
        joined = torch.cat([state["before"], x], dim=-1)
        frames = policy().windows(joined.reshape(batch * channels, -1), 2 * self.quantum, self.quantum)
        fresh = self.dft(frames).view(batch, channels, 2 * bins, quanta)
        spectra = torch.cat([state["spectra"], fresh], dim=-1)
        # Channels that have a response each are rows of the product, and the others share it as a batch does.
        own = len(self.responses)
        heard = policy().windows(spectra.view(batch, channels, 2, bins, -1), self.parts, 1)
        rows = heard.permute(1, 3, 0, 4, 2, 5) if own > 1 else heard.permute(3, 0, 1, 4, 2, 5)[None]
        rows = rows.expand(own, *rows.shape[1:]).reshape(own * bins, -1, 2 * self.parts)
        # Both matrices lie along what is summed over: 40 times as fast as the other way for two columns.
        mixed = torch.bmm(rows, self.products.transpose(1, 2)).view(own, bins, batch, -1, quanta, 2)
        spectrum = mixed.permute(2, 0, 3, 5, 1, 4).reshape(-1, 2 * bins, quanta)
        y = self.inverse(spectrum)[..., self.quantum :].reshape(batch, self.channels_out, samples)
        after = {"before": own_copy(joined[..., samples:]), "spectra": own_copy(spectra[..., quanta:])}
        return y, after


@register("convolve")
class Convolve(_Partitioned):
    """Convolution with a long response, such as a room's: ``y[n] = sum taps[i] x[n - i]``.

    ``(batch, channels, k * partition)`` to as many samples. As ``fir`` does, with the work of a Fourier transform a
    quantum in place of a multiplication a tap: half a second at 44.1 kHz costs as much as some 300 taps. It waits for
    ``partition`` samples, which is framing. What comes late in a response is an effect and no latency: a response is
    taken to begin with its direct sound, and the declared latency is 0.

    Partitions of one size, as in T. Stockham, "High-speed convolution and correlation" (AFIPS 1966), with the spectra
    of the input kept (G. Garcia, "Optimal filter partition for efficient convolution with short input/output delay",
    AES 113, 2002, compares others).

    Args:
        source: audio. One channel and several responses give a channel for each; otherwise one response is for all
            channels, or there is one for each.
        taps: the response, or a list of them of the same length, 1 to 2^20 samples. Either this or ``file``.
        file: path of an audio file with the response at the source's rate, a channel each. A relative one is looked
            up from where the program runs.
        partition: samples that are convolved at a time, 16 to 8192. Default 256.

    Raises:
        ValueError: for no response, two of them, or one that is too long or cannot be read.
        RateError: for a number of responses that does not fit the channels, or a file at another rate.
    """

    def __init__(
        self,
        source: Stream,
        *,
        taps: Sequence[float] | Sequence[Sequence[float]] | None = None,
        file: str | None = None,
        partition: int = 256,
    ) -> None:
        if (taps is None) == (file is None):
            raise ValueError("convolve needs either taps or file: give one of them")
        responses = read_taps(taps) if taps is not None else read_file(str(file), source)
        super().__init__(source, responses, partition)


@register("room")
class Room(_Partitioned):
    """The sound of a room around a voice: the convolution with the response of a box with hard walls.

    One channel to one for each microphone, ``(batch, 1, k * partition)`` in. The response is that of image sources
    (J. Allen and D. Berkley, "Image method for efficiently simulating small-room acoustics", J. Acoust. Soc. Am. 65(4),
    1979): each image at its whole sample, as much softer as it is farther away and by the walls it was reflected from.
    The nearest microphone's direct sound has level 1 and comes at once, so there is no latency, and no share of the
    input itself need be added. Reflections pass a high-pass of 100 Hz, as in that paper: images of one sign add up to a
    rumble that no room has. The level falls by 60 dB in between Eyring's ``0.16 V / (-S log(1 - absorption))`` and
    Sabine's ``0.16 V / (S absorption)`` seconds, for a volume of ``V`` cubic metres and walls of ``S`` square metres::

        hall: {use: room, size: [12, 9, 5], absorption: 0.2, seconds: 1.2}

    Args:
        source: one channel of audio.
        size: length, width and height in metres, 0.5 to 100 each. Default 5 by 4 by 2.6, a living room.
        voice: where the voice is, metres from the corner. Left out, at three tenths of each side.
        microphones: where the microphones are, one to eight of them. Left out, one at six, five and five tenths.
        absorption: share of the energy that a wall takes, 0.01 to 1. Default 0.35, a furnished room.
        seconds: length of the response, 0.01 to 10. Default 0.5.
        partition: as of ``convolve``.

    Raises:
        ValueError: for a number out of range, a place outside of the room, or a room with more than 2^24 images.
        RateError: for an input of more than one channel.
    """

    def __init__(
        self,
        source: Stream,
        *,
        size: Sequence[float] = (5.0, 4.0, 2.6),
        voice: Sequence[float] | None = None,
        microphones: Sequence[Sequence[float]] | None = None,
        absorption: float = 0.35,
        seconds: float = 0.5,
        partition: int = 256,
    ) -> None:
        if source.channels != 1:
            raise RateError(f"room takes one channel, not {source.channels}: bring them to one with matrix")
        box = place("size", size, (100.0,) * 3)
        if box.min() < 0.5:
            raise ValueError(f"size must be 0.5 to 100 m a side, not {list(size)}")
        spoken = 0.3 * box if voice is None else place("voice", voice, box)
        given = [0.5 * box + (0.1 * box[0], 0, 0)] if microphones is None else microphones
        if not 1 <= len(given) <= 8:
            raise ValueError(f"microphones must be 1 to 8 places, not {len(given)}")
        heard = [place("microphones", where, box) for where in given]
        length = round(check_real("seconds", seconds, 0.01, 10) * float(source.rate))
        kept = math.sqrt(1 - check_real("absorption", absorption, 0.01, 1))
        rate = float(source.rate)
        responses = without_rumble(room_response(box, spoken, heard, kept, max(1, length), rate), rate)
        super().__init__(source, responses, partition)


def room_response(
    size: Float64, voice: Float64, microphones: Sequence[Float64], kept: float, length: int, rate: float
) -> Float64:
    """The responses of a box at each microphone, ``(microphones, length)``.

    Args:
        size, voice, microphones: metres, three numbers each.
        kept: share of the amplitude that a wall reflects.
        length: samples, the first at the nearest microphone's direct sound.
        rate: samples a second.
    """
    nearest = max(1e-2, min(float(np.linalg.norm(voice - microphone)) for microphone in microphones))
    reach = nearest + length / rate * SOUND
    counts = [math.ceil(reach / (2 * side)) for side in size]
    images = math.prod(2 * (2 * count + 1) for count in counts)
    if images > 1 << 24:
        raise ValueError(f"seconds is too long: the room would have {images} images, more than {1 << 24}")
    responses = np.zeros((len(microphones), length))
    for row, microphone in enumerate(microphones):
        # Along each axis the places of the images, and how many walls lie between them and the voice.
        squares: list[Float64] = []
        bounces = []
        for side, spoken, heard, count in zip(size, voice, microphone, counts, strict=True):
            period = np.arange(-count, count + 1)
            offsets = np.concatenate([2 * period * side + spoken, 2 * period * side - spoken]) - heard
            squares.append(offsets**2)
            bounces.append(np.concatenate([2 * np.abs(period), np.abs(2 * period - 1)]))
        flat = (squares[0][:, None] + squares[1]).reshape(-1)
        walls = (bounces[0][:, None] + bounces[1]).reshape(-1)
        for square, bounce in zip(squares[2], bounces[2], strict=True):
            distance = np.maximum(np.sqrt(flat + square), 1e-2)
            index = np.rint((distance - nearest) / SOUND * rate).astype(np.int64)
            inside = (index >= 0) & (index < length)
            level = nearest / distance[inside] * kept ** (walls[inside] + bounce)
            responses[row] += np.bincount(index[inside], level, minlength=length)
    return responses


def without_rumble(responses: Float64, rate: float) -> Float64:
    """Responses whose reflections lack what lies below 100 Hz. The direct sound, the first to arrive, stays."""
    highpass = second_order(math.tan(math.pi * min(RUMBLE, rate / 8) / rate), math.sqrt(2), 1.0, 0.0, 0.0)
    # The filter's own response, as long as anything of it is left in float64.
    length = responses.shape[1]
    own, state = [highpass.d], highpass.b
    for _ in range(min(length, round(rate / 12)) - 1):
        own.append(float(highpass.c @ state))
        state = highpass.a @ state
    direct = np.where(np.cumsum(responses != 0, axis=1) == 1, responses, 0.0)
    size = 1 << (length + len(own)).bit_length()
    filtered = np.fft.irfft(np.fft.rfft(responses - direct, size) * np.fft.rfft(own, size), size)
    return np.asarray(direct + filtered[:, :length], dtype=np.float64)


def place(name: str, given: Sequence[float] | Float64, box: Sequence[float] | Float64) -> Float64:
    """Three numbers of metres, each from 0 to the side of ``box``."""
    if len(given) != 3:
        raise ValueError(f"{name} must be three numbers, not {len(given)}")
    return np.array([check_real(name, value, 0, float(side)) for value, side in zip(given, box, strict=True)])


def read_taps(taps: Sequence[float] | Sequence[Sequence[float]]) -> Float64:
    """One response or several as ``(responses, length)``."""
    try:
        responses = np.atleast_2d(np.array(taps, dtype=np.float64))
    except (TypeError, ValueError):
        raise ValueError("taps must be numbers, or lists of them of one length") from None
    if responses.ndim != 2 or not responses.size or not np.isfinite(responses).all():
        raise ValueError("taps must be 1 or more finite numbers, or lists of them of one length")
    return responses


def read_file(file: str, source: Stream) -> Float64:
    """The channels of an audio file as ``(responses, length)``."""
    if not Path(file).is_file():
        raise ValueError(f"file must be an audio file, and there is none at '{file}'")
    try:
        with AudioReader(file) as reader:
            if reader.is_cut:
                raise ValueError(
                    f"file must be whole, and '{file}' has {reader.missing} samples fewer than its header says: copy "
                    "it again"
                )
            if reader.rate != source.rate:
                raise RateError(
                    f"'{file}' is at {reader.rate} Hz and the source at {source.rate} Hz: resample the file"
                )
            promised = reader.promised or 0
            samples = reader.read_exactly(min(promised or LONGEST, LONGEST) + 1)
            if not len(samples):
                raise ValueError(f"file must hold a response, and '{file}' holds no samples")
            if len(samples) > LONGEST:
                raise ValueError(f"file must have at most {LONGEST} samples, not {promised or 'more'}: cut its end off")
    except AudioError as error:
        raise ValueError(f"file must be a readable audio file: {error}") from None
    return read_taps(np.ascontiguousarray(samples.T).tolist())
