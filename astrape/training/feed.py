"""The data of a training: corpus, split and caches found and checked, windows for every step and for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from astrape.audio.atomic import shown
from astrape.audio.downmix import MEAN
from astrape.audio.places import Place, joined
from astrape.corpus.layouts import corpus_at, default_corpus, read_corpus
from astrape.corpus.splits import CorpusSplit, split_corpus
from astrape.corpus.utterances import Utterance, speakers_of
from astrape.graph.graph import Graph
from astrape.training.beside import Beside, PackedBeside
from astrape.training.caches import KINDS, Cache, Pack, find_caches, load_front
from astrape.training.caches.recording import read_header
from astrape.training.deal import Steps
from astrape.training.errors import CacheError, TrainingError
from astrape.training.learner import Batch
from astrape.training.names import SIGNALS
from astrape.training.options import Options
from astrape.training.packed_windows import PackedShares, PackedWindows, check_audio
from astrape.training.sets import SetWindows
from astrape.training.shares import Shares
from astrape.training.stage import Stage
from astrape.training.targets import Targets, audio_input
from astrape.training.windows import Cropping, WindowLoader, Windows, mapped

__all__ = ["Feed", "TrainingData", "open_data"]

CACHES = {signal: kind for kind in ("wavlm", "content", "speakers") for signal in SIGNALS[kind]}
CACHES["pair.speaker"] = CACHES["speaker"]
"""The cache that a signal is in. Audio and pitch have other sources than caches, which come first where they are."""


class TrainingData:
    """Training data: a corpus, split by speaker, and its caches by kind.

    Attributes:
        corpus: where the recordings are.
        split: which of them are for training.
        caches: by kind, those that were found.
        pack: the shards that the caches are packed in; ``None`` for folders.
    """

    def __init__(
        self,
        corpus: Path | Place,
        split: CorpusSplit,
        caches: dict[str, Cache],
        root: Path | Place,
        pack: Pack | None = None,
    ) -> None:
        self.corpus = corpus
        self.split = split
        self.caches = caches
        self.root = root
        self.pack = pack

    @property
    def is_remote(self) -> bool:
        """Whether any of it is fetched when it is read."""
        return self.pack is not None or isinstance(self.root, Place) or isinstance(self.corpus, Place)

    def cache(self, kind: str, why: str) -> Cache:
        """The cache of a kind.

        Raises:
            CacheError: where there is none, with the command that makes it.
        """
        if kind not in self.caches and self.pack is not None:
            raise CacheError(
                f"{self.pack.place}: holds no {kind}, and {why}: make it with `astrape cache --what {kind}` and pack "
                f"again"
            )
        if kind not in self.caches:
            raise CacheError(
                f"{shown(self.root)}: holds no cache of {kind}, and {why}: make it with `astrape cache --what {kind} "
                f"--data {shown(self.corpus)} --cache {shown(self.root)}`, or name its folder with --{kind}-dir"
            )
        return self.caches[kind]


def open_data(options: Options, graph: Graph, entry: str) -> TrainingData:
    """Find the corpus and its caches, and hold the features against the recipe.

    Raises:
        CacheError: for a corpus or caches that are missing, several of a kind where none is named, and features of
            another rate or width than the recipe's.
    """
    if options.pack is not None:
        pack = Pack(Place(options.pack))
        data = TrainingData(pack.place, pack.split, dict(pack.caches), pack.place, pack)
        _check_features(data, options, graph, entry)
        return data
    rate = graph.inputs[audio_input(graph)].rate
    found = {kind: _find(options.cache, kind, options.folders.get(kind), rate) for kind in KINDS}
    caches = {kind: cache for kind, cache in found.items() if cache is not None}
    recorded = next((str(one.record.options["data"]) for one in caches.values() if "data" in one.record.options), None)
    corpus = options.data
    if corpus is None:
        corpus = corpus_at(recorded) or default_corpus()
    kept = next(
        (str(one.record.options["channel"]) for one in caches.values() if "channel" in one.record.options), MEAN
    )
    channel = kept if options.channel == MEAN else options.channel
    seed = options.seed if options.split_seed is None else options.split_seed
    split = split_corpus(read_corpus(corpus, options.microphone, channel), options.unseen, seed)
    data = TrainingData(corpus, split, caches, options.cache)
    _check_features(data, options, graph, entry)
    return data


def _check_features(data: TrainingData, options: Options, graph: Graph, entry: str) -> None:
    """Hold features against the recipe, and give the graph the front end that made them."""
    stream = graph.inputs[entry] if entry in graph.inputs else graph.outputs[entry]
    if options.features_rate is not None and options.features_rate != stream.rate:
        raise CacheError(f"--wavlm-rate {options.features_rate}: '{entry}' of '{graph.name}' runs at {stream.rate} Hz")
    if entry not in graph.inputs:
        features = data.cache("wavlm", "training begins at the features")
        if (features.rate, features.channels) != (stream.rate, stream.channels):
            raise CacheError(
                f"{shown(features.folder)}: has {features.channels} channels at {features.rate} Hz, and '{entry}' of "
                f"'{graph.name}' {stream.channels} at {stream.rate} Hz: name another cache with --wavlm-dir, or "
                f"another --recipe"
            )
        load_front(graph, features.folder, features.record)


class Feed:
    """Windows for every step and for validation, on the device.

    Args:
        data: corpus and caches.
        options: seed, workers.
        graph: whose period windows begin on.
        entry: the signal that is stored, whose frames ``stage.window`` counts.
        stage: windows, batch, steps.
        targets: what losses compare with.
        needs: signals that a batch must have.
        accelerator: which process this is, and its device.

    Attributes:
        speakers: how many there are to train on.
        speaker_encoder: who made the speakers' embeddings, as voicebanks name it; ``None`` without any.
        facts: what going on from a checkpoint insists on: hashes of corpus and caches.
        description: in a line.

    Raises:
        CacheError: for a cache that is needed and missing, or does not hold the corpus, and for recordings and arrays
            that cannot be opened.
    """

    def __init__(
        self,
        data: TrainingData,
        options: Options,
        graph: Graph,
        entry: str,
        stage: Stage,
        targets: Targets,
        needs: Iterable[str],
        accelerator: Accelerator,
    ) -> None:
        needed = set(needs)
        audio = graph.inputs[audio_input(graph)]
        if entry in graph.inputs:
            needed = needed - {"features"} | {"audio"}
        kinds = dict.fromkeys(CACHES[name] for name in sorted(needed) if name in CACHES)
        everyone = [*data.split.train, *data.split.unseen]
        if "speakers" not in data.caches and stage.pairs is not None and all(one.vector for one in everyone):
            kinds.pop("speakers", None)
        caches = [data.cache(kind, f"the {stage.name}'s losses need it") for kind in kinds]
        if "audio" in needed and "audio" in data.caches:
            caches.append(data.caches["audio"])
        stream = graph.inputs[entry] if entry in graph.inputs else graph.outputs[entry]
        rate = audio.rate if "audio" in needed else None
        self.targets, self.accelerator = targets, accelerator

        def windows(utterances: list[Utterance], frames: int) -> Windows | SetWindows:
            cropping = Cropping(Fraction(frames) / stream.rate, graph.period, rate, options.seed)
            steps = Steps(stage.batch, accelerator.num_processes, stage.steps_per_epoch)
            if data.pack is not None and utterances is data.split.train and stage.pairs is None:
                return PackedWindows(data.pack, caches, cropping, steps)
            if stage.pairs is None:
                return Windows(utterances, caches, **vars(cropping))
            if entry not in graph.inputs:
                raise TrainingError(
                    f"training.{stage.name}: sources of parallel sets are recordings, and training begins at "
                    f"'{entry}': write features: {audio_input(graph)}"
                )
            if stage.pairs.both and stage.batch % 2:
                raise TrainingError(
                    f"training.{stage.name}: rows come in twos, there and back, and a batch of {stage.batch} parts two "
                    f"of them: give each process an even number"
                )
            more = [data.caches["pitch"]] if "pair.pitch" in needed and "pitch" in data.caches else []
            beside = Beside()
            order: Callable[..., Shares] = Shares
            if data.pack is not None:
                check_audio(data.pack, caches, audio.rate)
                beside = PackedBeside(data.pack)
            if data.pack is not None and utterances is data.split.train:
                drawn = replace(steps, batch=stage.batch // 2) if stage.pairs.both else steps
                order = partial(PackedShares, pack=data.pack, steps=drawn)
            return SetWindows(
                utterances,
                [*caches, *more],
                stage.pairs,
                needed,
                replace(cropping, audio=audio.rate),
                beside=beside,
                order=order,
            )

        self.windows = windows(data.split.train, stage.window)
        held_out = windows(data.split.unseen, stage.evaluation_window)
        caches = list(self.windows.caches.values())
        probes = balanced(held_out.utterances, options.probes)
        if accelerator.is_main_process:
            # In a store that would fetch everything; damage there is reported when it is read.
            learned = [] if data.is_remote else self.windows.utterances
            _check([*learned, *probes], self.windows, "audio" in needed)
        self.speakers = len(self.windows.speakers)
        self.speaker_encoder = next((_teacher(cache) for cache in caches if cache.what == "speakers"), None)
        self._loader = WindowLoader(
            self.windows,
            steps=stage.steps_per_epoch,
            batch=stage.batch,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            workers=options.workers,
            pin=accelerator.device.type == "cuda",
        )
        own = probes[accelerator.process_index :: accelerator.num_processes]
        self._validation: DataLoader[dict[str, Tensor]] = DataLoader(_Probes(held_out, own), batch_size=stage.batch)
        self.facts = {
            "training data": _digest(one.key for one in self.windows.utterances),
            **{f"cache of {cache.what}": cache.record.maker for cache in caches},
            **{f"identity of {cache.what}": _digest([str(sorted(cache.record.identity.items()))]) for cache in caches},
        }
        left = len(self.windows.left_out) + len(held_out.left_out)
        sets = f" in {len(self.windows)} sets" if isinstance(self.windows, SetWindows) else ""
        self.description = (
            f"{len(self.windows.utterances)} utterances of {self.speakers} speakers{sets} to learn from, {len(probes)} "
            f"of {len(held_out.speakers)} others to validate on ({', '.join(held_out.speakers[:4])}"
            f"{' and so on' if len(held_out.speakers) > 4 else ''}); windows of {float(self.windows.seconds):g} s"
            + (f"; {left} utterances are in no cache and left out" if left else "")
            + "".join(f"; {cache.what} by {cache.record.maker}" for cache in caches)
        )

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """The batches of an epoch from a step on, with all targets, on the device."""
        loaded = self._loader.epoch(epoch, first)
        while True:
            try:
                batch = next(loaded, None)
            except CacheError as error:
                # One that a loading process met comes with the whole of its traceback; its last line says what it is.
                line = str(error).strip().splitlines()[-1]
                raise CacheError(line.rpartition("CacheError: ")[2]) from error
            if batch is None:
                return
            yield self.targets.add(self._moved(batch))

    def validation(self) -> Iterator[Batch]:
        """This process's part of the validation windows, always the same."""
        for batch in self._validation:
            yield self.targets.add(self._moved(batch))

    def _moved(self, batch: Batch) -> Batch:
        # Seconds stay where float64 is; they are turned into whole frames before they meet a device.
        device = self.accelerator.device
        return {name: one if name == "valid" else one.to(device, non_blocking=True) for name, one in batch.items()}


class _Probes(Dataset[dict[str, Tensor]]):
    """The first window of each of some utterances."""

    def __init__(self, windows: Windows | SetWindows, utterances: list[Utterance]) -> None:
        self.windows, self.utterances = windows, utterances

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.windows.crop(self.utterances[index])


def balanced(utterances: list[Utterance], count: int) -> list[Utterance]:
    """Up to that many utterances, as many of each speaker as can be, the same ones each time."""
    queues = [sorted(theirs, key=lambda one: _digest([one.key])) for theirs in speakers_of(utterances).values()]
    turns = [
        theirs[turn] for turn in range(max(map(len, queues), default=0)) for theirs in queues if turn < len(theirs)
    ]
    return turns[:count]


def _teacher(cache: Cache) -> str | None:
    name = cache.record.identity.get("teacher")
    return name if isinstance(name, str) else None


def _find(root: Path | Place, kind: str, named: str | None, rate: Fraction) -> Cache | None:
    if named is not None:
        cache = Cache(joined(root, named))
        if cache.what != kind:
            raise CacheError(f"{shown(cache.folder)}: is a cache of {cache.what}, and --{kind}-dir names one of {kind}")
        if kind == "audio" and cache.rate != rate:
            raise CacheError(f"{shown(cache.folder)}: has audio at {cache.rate} Hz, and the recipe's has {rate} Hz")
        return cache
    found = [cache for folder in find_caches(root) if (cache := Cache(folder)).what == kind]
    # Recordings at other rates are for other recipes.
    found = [cache for cache in found if kind != "audio" or cache.rate == rate]
    if len(found) > 1:
        names = ", ".join(shown(cache.folder.name) for cache in found)
        raise CacheError(f"{shown(root)}: holds {len(found)} caches of {kind} ({names}): name one with --{kind}-dir")
    return found[0] if found else None


def _check(utterances: list[Utterance], windows: Windows | SetWindows, audio: bool) -> None:
    """Open what will be read, before an hour is lost on the rest of it."""
    faults: list[tuple[Utterance, CacheError]] = []
    for one in utterances:
        try:
            if isinstance(windows, SetWindows):
                windows.check(one)
                continue
            mapped(windows.caches.values(), one)
            if audio and "audio" not in windows.caches:
                read_header(one.path)
        except CacheError as error:
            faults.append((one, error))
    if faults:
        first, fault = faults[0]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise TrainingError(
            f"{shown(first.key)}: {fault}{more}: repair caches with `astrape check-cache --repair`, and take "
            f"recordings that cannot be read out of the corpus"
        )


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()[:16]
