"""The check that a voice comes from the speaker encoder that a decoder was trained with.

Embeddings of two speaker encoders have nothing in common but their length: a decoder makes some other voice, or none,
of one that it was not trained with. So weights carry the name of their encoder in the metadata of their file
(``speaker_encoder``), voicebanks carry theirs (``embedding_model``), and both are compared before a conversion.
"""

from __future__ import annotations

import os

from astrape.graph.graph import Graph
from astrape.graph.weights import given_or_shipped, weights_metadata
from astrape.voice.errors import VoicebankError
from astrape.voice.metadata import Metadata
from astrape.voice.names import ENCODERS, MEL_STATISTICS, SPEAKER_ENCODER
from astrape.voice.speaking import is_deaf

__all__ = ["BoundToSpace", "Space", "check_voice", "encoder_for", "space_of", "space_of_weights"]


class Space:
    """The speaker encoder of a decoder's weights.

    Args:
        names: embedding models whose voices it takes, divided by ``"; "``, as ``speaker_encoder`` in the metadata of
            the weights has them; the first is what new voices are made with.

    >>> Space("astrape-speaker; astrape/offline-v1").takes("astrape/offline-v1 (hama 1.7, resemblyzer 0.1.4)")
    True
    """

    def __init__(self, names: str) -> None:
        self.names = tuple(name.strip() for name in names.split(";") if name.strip())

    @property
    def encoder(self) -> str:
        """The name of its encoder for ``--encoder``."""
        return _called(self.names[0])

    def takes(self, model: str) -> bool:
        """Whether voices of an embedding model are of this space. Versions of packages, in brackets, do not count."""
        return any(_called(model) == _called(name) for name in self.names)


def space_of(about: dict[str, str]) -> Space | None:
    """The space that weights say they are of in their metadata; ``None`` where they do not."""
    names = about.get(SPEAKER_ENCODER, "")
    return Space(names) if names.strip(" ;") else None


def space_of_weights(
    weights: str | os.PathLike[str] | None, recipe: str | os.PathLike[str] | None = None
) -> Space | None:
    """The space of a file of weights, or of those that ship with a recipe; ``None`` where nothing is known.

    Raises:
        RecipeError: for weights that cannot be read.
    """
    if recipe is not None:
        weights = given_or_shipped(weights, recipe)
    return None if weights is None else space_of(weights_metadata(weights))


def encoder_for(
    encoder: str | None, weights: str | os.PathLike[str] | None, recipe: str | os.PathLike[str] | None = None
) -> str:
    """The speaker encoder to take: the one that is asked for, else that of the weights, else ``mel-statistics``."""
    if encoder is not None:
        return encoder
    space = space_of_weights(weights, recipe)
    return MEL_STATISTICS if space is None else space.encoder


class BoundToSpace:
    """Base of what speaks in a voice: a graph, the space of its weights, and the check that voices are of it.

    Attributes:
        graph: what speaks.
        space: of the weights; ``None`` where they say nothing.
        weights: their file; ``None`` where a converter was made of a graph, or of drawn weights.
        weights_name: what they are called in messages.
    """

    graph: Graph
    space: Space | None = None
    weights: str | os.PathLike[str] | None = None
    weights_name = "the decoder"

    @property
    def encoder(self) -> str:
        """The speaker encoder for recordings: the weights', else ``mel-statistics``."""
        return MEL_STATISTICS if self.space is None else self.space.encoder

    @property
    def learned(self) -> int:
        """Parameters in use: 0 for a recipe that has nothing to train, where no weights are missing."""
        return sum(parameter.numel() for parameter in self.graph.parameters())

    @property
    def random(self) -> bool:
        """Whether its weights were drawn: what comes out is noise."""
        return self.weights is None and self.learned > 0

    @property
    def deaf(self) -> bool:
        """Whether the weights ignore the voice, as fresh ones do: the output is the same for every voice."""
        return is_deaf(self.graph)

    def bind(self, weights: str | os.PathLike[str] | None, recipe: str | os.PathLike[str]) -> None:
        """Take the space from a file of weights, or from what ships with a recipe."""
        self.weights = given_or_shipped(weights, recipe)
        self.space = space_of_weights(self.weights)
        self.weights_name = f"'{os.fspath(recipe)}'" if weights is None else os.fspath(weights)

    def check_voice(self, metadata: Metadata, voice: str | os.PathLike[str] = "the voice") -> None:
        """Refuse a voice of another speaker encoder, see :func:`check_voice`."""
        check_voice(metadata, self.space, os.fspath(voice), self.weights_name)


def check_voice(metadata: Metadata, space: Space | None, voice: str, weights: str) -> None:
    """Refuse a voice of another speaker encoder than the decoder's. Where either says nothing, nothing is refused.

    Args:
        metadata: of the voicebank.
        space: of the weights.
        voice, weights: what they are called, for the message.

    Raises:
        VoicebankError: naming both encoders, with the command that makes the right voice.
    """
    model = metadata.embedding_model
    if space is None or not model or space.takes(model):
        return
    raise VoicebankError(
        f"{voice}: is a voice of the speaker encoder '{_plain(model)}', and {weights} takes voices of "
        f"'{space.names[0]}': hint: build it anew with `astrape voicebank build RECORDING -o VOICE.astrape --encoder "
        f"{space.encoder}`, or give weights that were trained with it"
    )


def _called(name: str) -> str:
    """The name by which an encoder is opened, of the name that its voices carry."""
    family = name.partition(" (")[0].strip()
    return ENCODERS.get(family, family)


def _plain(name: str) -> str:
    """A text on one short line: voicebanks come from anywhere."""
    text = "".join(char if char.isprintable() else "?" for char in name)
    return text if len(text) <= 80 else f"{text[:77]}..."
