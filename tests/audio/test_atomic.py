"""Files that appear whole or not at all, and what is said of a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from astrape.audio import atomic
from astrape.audio.atomic import atomic_path, is_stale, temporaries, write_whole
from astrape.audio.writer import AudioWriter
from astrape.errors import WriteError


def test_a_file_is_there_when_the_block_ends_well_and_not_otherwise(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    with pytest.raises(KeyboardInterrupt), atomic_path(target):
        raise KeyboardInterrupt
    with pytest.raises(WriteError, match=r"a\.txt: cannot be written: Input/output error"), atomic_path(target):
        raise OSError(5, "Input/output error")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_names_of_any_length_and_script(tmp_path: Path) -> None:
    for name in ("é" * 120 + ".wav", "😀" * 60 + ".wav", "a" * 250, ".hidden", "a." + "b" * 200):
        write_whole(tmp_path / name, b"x")
        with atomic_path(tmp_path / name) as temporary:
            assert [temporary] == list(temporaries(tmp_path))
            assert not is_stale(temporary)
        assert (tmp_path / name).exists()
    assert len(os.listdir(tmp_path)) == 5


def test_what_takes_more_space_than_there_is_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "free_space", lambda folder: 100_000)
    with pytest.raises(
        WriteError, match=r"no space left on the device \(0\.10 MB are free there, it takes 0\.20 MB\)"
    ) as e:
        write_whole(tmp_path / "a.bin", bytes(200_000))
    assert e.value.full
    with pytest.raises(WriteError, match=r"it takes 0\.89 MB"):
        AudioWriter(tmp_path / "a.wav", 44100, 1, "PCM_16", frames=441_000).__enter__()
    assert not os.listdir(tmp_path)
    write_whole(tmp_path / "small.bin", bytes(50_000))


LIMITED = """
import resource, sys
import numpy as np
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
from astrape.audio.writer import AudioWriter
from astrape.errors import WriteError
try:
    with AudioWriter(sys.argv[1], 44100, 1, "PCM_16") as written:
        for _ in range(50):
            written.write(np.random.default_rng(0).uniform(-0.5, 0.5, (10_000, 1)))
except WriteError as error:
    print(error, error.full)
"""


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "aiff"])
def test_a_write_that_fails_says_why(tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"a.{ending}"
    done = subprocess.run([sys.executable, "-c", LIMITED, target], capture_output=True, text=True, check=True)
    assert f"a.{ending}: cannot be written: file too large" in done.stdout, done.stdout + done.stderr
    assert done.stdout.strip().endswith("True")
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk")
@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_a_full_disk_is_told_with_numbers(tmp_path: Path, ending: str) -> None:
    program = LIMITED.replace("resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))", "")
    script = (
        f"mount -t tmpfs -o size=256k tmpfs {tmp_path} && exec {sys.executable} -c '{program}' {tmp_path}/a.{ending}"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no mount here: {done.stderr.strip()[:80]}")
    assert (
        "cannot be written: no space left on the device (0.26 MB are free there, it takes more than the" in done.stdout
    ), done.stderr


def test_the_writer_keeps_floats_and_clips_the_rest(tmp_path: Path) -> None:
    x = np.array([[0.5], [1.5], [-2.0]], np.float32)
    for subtype, wanted in (("FLOAT", [0.5, 1.5, -2.0]), ("PCM_16", [0.5, 1.0, -1.0])):
        with AudioWriter(tmp_path / "a.wav", 8000, 1, subtype) as written:
            written.write(x)
        assert (written.frames, written.clipped, written.level.peak) == (3, 2, 2.0)
        found, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
        np.testing.assert_allclose(found, wanted, atol=1e-4)
