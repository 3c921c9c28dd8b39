"""Checkpoints of the original system: reading a file that may come from anywhere, and holding it to its form."""

from __future__ import annotations

import math
import os
import pickle
import stat
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astrape.errors import AstrapeError
from astrape.graph.checksums import archive_fault
from astrape.wording import reason_of

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "check_tensor",
    "listed",
    "printable",
    "read_checkpoint",
    "unpickled",
]

MOST_TENSORS = 65536
MOST_ELEMENTS = 1 << 29
"""Numbers in all tensors of a file: 2 GiB in float32, a dozen times an encoder."""

LARGEST_FILE = 64 << 30
"""Bytes; an optimiser beside the networks makes some 300 MB."""

LARGEST_PICKLE = 64 << 20
"""Bytes of the part of a file that names its tensors; some 100 KiB in a real one."""

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of PyTorch files that are not zip archives."""

PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that parallel and compiled training put before every name."""

SAMPLE = 8
"""Names that a message lists before it counts the rest."""


class CheckpointError(AstrapeError):
    """A checkpoint that cannot be read, or that the original's networks do not explain. It names file and tensors."""


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a file.

    Attributes:
        file: its name, as messages give it.
        config: its settings, plain values by name; empty where it has none.
        tensors: by name, dense float tensors.
    """

    file: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False)

    def error(self, message: str) -> CheckpointError:
        return CheckpointError(f"{self.file}: {message}")


def read_checkpoint(path: str | os.PathLike[str], part: str) -> Checkpoint:
    """Read an encoder's or a decoder's file.

    Nothing in it is executed: PyTorch's restricted unpickler admits tensors and plain containers alone, to which paths
    are added as inert values, since the original keeps its command line in the file. Tensors are mapped, not loaded, so
    a file's optimiser costs nothing, and no more is read than the file has.

    Args:
        path: a file that ``torch.save`` wrote, of the zip form that it has written since PyTorch 1.6.
        part: ``"encoder"``, with ``config`` and ``state_dict``, or ``"decoder"``, with ``decoder_config`` and
            ``state_dict``.

    Raises:
        CheckpointError: for a file that is not such an archive, or holds anything but numbers.
    """
    file = printable(os.fspath(path))
    content = unpickled(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: holds a {type(content).__name__} and not a dict with 'state_dict'")
    own, other = ("config", "decoder_config") if part == "encoder" else ("decoder_config", "config")
    if "state_dict" not in content:
        raise CheckpointError(f"{file}: has no 'state_dict', so it is not a checkpoint of the {part}")
    if own not in content and other in content:
        mistaken = "decoder" if part == "encoder" else "encoder"
        raise CheckpointError(f"{file}: has '{other}' and not '{own}': it is a {mistaken}'s, give it as --{mistaken}")
    config, state = content.get(own, {}), content["state_dict"]
    if not isinstance(config, dict):
        raise CheckpointError(f"{file}: its '{own}' is a {type(config).__name__} and not a dict")
    if not isinstance(state, dict):
        raise CheckpointError(f"{file}: its 'state_dict' is a {type(state).__name__} and not a dict")
    settings = {key: value for key, value in config.items() if isinstance(key, str)}
    return Checkpoint(file, settings, _checked(state, file))


def printable(text: str | bytes) -> str:
    """A name as one line without control characters, safe to print in a terminal."""
    name = os.fsdecode(text)
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "replace").decode() for char in name)


def listed(names: list[str], longest: int = 80) -> str:
    """The first names, shortened where they are long, and how many there are more."""
    shown = [printable(name if len(name) <= longest else name[: longest - 3] + "...") for name in names[:SAMPLE]]
    more = f" and {len(names) - SAMPLE} more" if len(names) > SAMPLE else ""
    return ", ".join(shown) + more


def _check_container(path: str | os.PathLike[str], file: str, legacy: bool) -> bool:
    """Check that it is a zip archive as ``torch.save`` writes it, uncompressed, with a pickle of a bounded size.

    Returns whether it is one, and not of the older form, which holds nothing but pickles and the tensors' own bytes.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise CheckpointError(f"{file}: is not a regular file")
        if found.st_size > LARGEST_FILE:
            raise CheckpointError(f"{file}: has {found.st_size} bytes, more than {LARGEST_FILE}")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile:
        with open(path, "rb") as opened:
            if opened.read(len(LEGACY)) == LEGACY:
                if legacy:
                    return False
                raise CheckpointError(f"{file}: is of the form before PyTorch 1.6: load it and save it again") from None
        raise CheckpointError(f"{file}: is not a checkpoint of PyTorch, or is cut short") from None
    except OSError as error:
        raise CheckpointError(f"{file}: {reason_of(error)}") from None
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise CheckpointError(f"{file}: is not a checkpoint of PyTorch: {_first_line(error)}") from None
    pickles = [entry for entry in entries if Path(entry.filename).name == "data.pkl"]
    if len(pickles) != 1:
        raise CheckpointError(f"{file}: is not a checkpoint of PyTorch: it has no data.pkl")
    if pickles[0].file_size > LARGEST_PICKLE:
        raise CheckpointError(f"{file}: its data.pkl has {pickles[0].file_size} bytes, more than {LARGEST_PICKLE}")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"{file}: is compressed, which PyTorch's own files are not: save it with torch.save")
    return True


def unpickled(path: str | os.PathLike[str], *, legacy: bool = False) -> Any:
    """The contents of a file of PyTorch: tensors, mapped from it, plain containers and inert paths.

    Args:
        path: a file that ``torch.save`` wrote.
        legacy: take the form before PyTorch 1.6 too, which is read and not mapped.

    Raises:
        CheckpointError: for any other file, one that would inflate or that asks for more than it has, and one with
            anything in it that could run.
    """
    file = printable(os.fspath(path))
    mapped = _check_container(path, file, legacy)
    fault = archive_fault(path)
    if fault is not None:
        raise CheckpointError(f"{file}: is damaged: {printable(fault)}: copy it again")
    try:
        with _inert_paths(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged file, on lines of their own
            return torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=mapped)
    except (pickle.UnpicklingError, RuntimeError) as error:
        # PyTorch's own text goes on to recommend loading without restrictions.
        text = str(error).split("WeightsUnpickler error:")[-1]
        if "GLOBAL " in text:
            name = text.split("GLOBAL ", 1)[1].split(" ", 1)[0]
            reason = f"holds a {printable(name)[:80]}, and only tensors and plain values are read"
        elif isinstance(error, pickle.UnpicklingError) and "WeightsUnpickler error:" not in str(error):
            reason = "cannot be read as a checkpoint: it holds more than tensors and plain values, or is damaged"
        else:
            reason = f"cannot be read as a checkpoint: {_first_line(text)}"
        raise CheckpointError(f"{file}: {reason}") from None
    except MemoryError:
        raise CheckpointError(f"{file}: asks for more memory than there is") from None
    except RecursionError:
        raise CheckpointError(f"{file}: cannot be read as a checkpoint: it is nested too deeply") from None
    except Exception as error:  # the unpickler fails on damaged bytes with whatever they lead it into
        raise CheckpointError(
            f"{file}: cannot be read as a checkpoint: {type(error).__name__} {_first_line(error)}"
        ) from None


def _checked(state: Mapping[Any, Any], file: str) -> dict[str, Tensor]:
    """The tensors of a state dict, without a prefix that all names share."""
    if len(state) > MOST_TENSORS:
        raise CheckpointError(f"{file}: its state_dict has {len(state)} entries, more than {MOST_TENSORS}")
    total = 0
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{file}: its state_dict has a {type(name).__name__} for a name")
        total += check_tensor(name, tensor, file)
    if total > MOST_ELEMENTS:
        raise CheckpointError(f"{file}: its tensors have {total} numbers, more than {MOST_ELEMENTS}")
    tensors = dict(state)
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def check_tensor(name: str, tensor: Any, file: str) -> int:
    """The number of elements of a tensor.

    Raises:
        CheckpointError: for anything but a dense tensor, for more than ``MOST_ELEMENTS``, or more than its file has
            bytes for, as one with a stride of 0 may.
    """
    what = f"{file}: {listed([name])}"
    if not isinstance(tensor, Tensor):
        raise CheckpointError(f"{what} is a {type(tensor).__name__} and not a tensor")
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise CheckpointError(f"{what} is not a dense tensor")
    size = math.prod(tensor.shape)
    if size > MOST_ELEMENTS:
        shape = " x ".join(map(str, tensor.shape))
        raise CheckpointError(f"{what} is {shape}, more than {MOST_ELEMENTS} numbers")
    if size * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{what} claims {size} numbers, more than the file has for it")
    return size


def _inert_paths() -> AbstractContextManager[Any]:
    """Lets the unpickler take paths, as values of nothing but their name."""
    allow = getattr(torch.serialization, "safe_globals", None)
    if allow is None:  # before PyTorch 2.5
        return nullcontext()
    kinds = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    modules = ("pathlib", "pathlib._local")  # Python 3.13 named it otherwise
    context: AbstractContextManager[Any] = allow(
        [
            type(kind, (_InertPath,), {"__module__": module, "__qualname__": kind})
            for module in modules
            for kind in kinds
        ]
    )
    return context


class _InertPath:
    """Stand-in for a path of the machine that wrote the file, which is not needed."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts


def _first_line(error: BaseException | str) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0])[:200] if lines else "damaged"
