"""Damage of every kind is found, named, and repaired to the same bytes; and the commands."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("pyworld")
pytest.importorskip("av")

from astrape.cli import cli
from astrape.corpus import CorpusError, check_corpus, repair_corpus
from tests.corpus.tiny_packages import contents

if TYPE_CHECKING:
    from tests.corpus.tiny_packages import Packages


def astrape(*words: Any) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-200] ^= 0x10
    path.write_bytes(content)


def louder(path: Path) -> None:
    audio, rate = soundfile.read(path)
    soundfile.write(path, 0.5 * audio, rate, subtype="PCM_16")


def shorter(path: Path) -> None:
    audio, rate = soundfile.read(path)
    soundfile.write(path, audio[:-1], rate, subtype="PCM_16")


def slower(path: Path) -> None:
    audio, _ = soundfile.read(path)
    soundfile.write(path, audio, 22050, subtype="PCM_16")


def table(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda path: np.save(path, change(np.load(path)))


def not_finite(values: Any) -> Any:
    values[3] = np.nan
    return values


DAMAGES: list[tuple[str, Callable[[Path], None], set[str]]] = [
    ("flac", cut, {"truncated"}),
    ("flac", emptied, {"empty"}),
    ("flac", flipped, {"changed", "truncated"}),
    ("flac", louder, {"changed"}),
    ("flac", shorter, {"shape"}),
    ("flac", slower, {"shape"}),
    ("flac", lambda path: path.write_bytes(b"junk" * 99), {"unreadable"}),
    ("flac", Path.unlink, {"missing"}),
    ("f0.npy", table(not_finite), {"non-finite"}),
    ("f0.npy", table(lambda f0: -f0 - 1), {"shape"}),
    ("f0.npy", table(lambda f0: f0[:-1]), {"shape"}),
    ("f0.npy", cut, {"truncated"}),
    ("f0.npy", Path.unlink, {"missing"}),
    ("phones.npy", table(lambda labels: labels.astype(np.int64)), {"shape"}),
    ("phones.npy", table(lambda labels: labels[::-1].copy()), {"changed"}),
    ("set.json", emptied, {"empty"}),
    ("set.json", cut, {"unreadable"}),
    ("set.json", lambda path: path.write_text('{"frames": 3}'), {"unreadable"}),
    ("set.json", Path.unlink, {"missing"}),
    ("", shutil.rmtree, {"missing"}),
]


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """The whole corpus, to be damaged: packages are linked, the rest is copied."""
    target = tmp_path / "copy"
    shutil.copytree(whole / "packages", target / "packages", copy_function=os.link)
    shutil.copytree(whole, target, ignore=shutil.ignore_patterns("packages"), dirs_exist_ok=True)
    return target


@pytest.mark.parametrize(("ending", "damage", "kinds"), DAMAGES)
def test_each_kind_of_damage_is_found(copy: Path, ending: str, damage: Callable[[Path], None], kinds: set[str]) -> None:
    folder = copy / "sets" / "000" / "000002"
    path = sorted(folder.glob(f"*{ending}"))[0] if ending else folder
    damage(path)
    (finding,) = check_corpus(copy).findings
    assert finding.kind in kinds
    assert finding.key == "sets/000/000002"
    assert Path(finding.path) == (path if ending else folder / "set.json")
    assert finding.message


def test_all_damage_together_is_repaired_to_the_same_bytes(packages: Packages, copy: Path) -> None:
    sound = contents(copy)
    assert check_corpus(copy, reads=2).findings == ()
    folders = sorted(path.parent for path in copy.rglob("set.json"))
    damaged = list(zip(folders, [one for one in DAMAGES if one[0] != "phones.npy"], strict=False))
    assert len(damaged) >= 12
    for folder, (ending, damage, _) in damaged:
        damage(sorted(folder.glob(f"*{ending}"))[-1] if ending else folder)
    temporary = copy / "sets" / f".x.nobody.{2**22 + 1}.0.writing"
    temporary.write_bytes(b"half")
    os.utime(temporary, (0, 0))
    found = check_corpus(copy).findings
    assert len({one.key for one in found}) == len(damaged) + 1
    made, failed = repair_corpus(copy, found, packages=packages.table, model_sha256=packages.model_sha256)
    assert (made, failed) == (len(damaged), [])
    assert contents(copy) == sound
    assert check_corpus(copy).findings == ()
    assert not temporary.exists()


def test_what_others_keep_in_a_set_is_left_alone(packages: Packages, copy: Path) -> None:
    folder = copy / "sets" / "000" / "000000"
    voice = sorted(folder.glob("*.flac"))[0]
    vector = voice.with_suffix(".spk.npy")
    vector.write_bytes(b"who speaks")
    assert check_corpus(copy).findings == ()
    emptied(voice)
    repair_corpus(copy, check_corpus(copy).findings, packages=packages.table, model_sha256=packages.model_sha256)
    assert vector.read_bytes() == b"who speaks"


def test_a_set_that_others_drew_is_repaired_from_what_it_says_itself(packages: Packages, copy: Path) -> None:
    """Sets of before the generator: other voices than the seed would draw, and neither a seed nor checksums."""
    folder = copy / "sets" / "000" / "000001"
    info = json.loads((folder / "set.json").read_text())
    others = json.loads((copy / "sets" / "000" / "000000" / "set.json").read_text())
    shutil.rmtree(folder)
    shutil.copytree(copy / "sets" / "000" / "000000", folder)
    old = {name: others[name] for name in ("text", "phones", "prosody", "speed", "split", "frames", "voices")}
    assert old["text"] != info["text"]
    (folder / "set.json").write_text(json.dumps(old))
    assert check_corpus(copy).findings == ()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "set.json"}
    cut(sorted(folder.glob("*.flac"))[0])
    (folder / "phones.npy").unlink()
    found = check_corpus(copy).findings
    assert len(found) == 2
    made, failed = repair_corpus(copy, found, packages=packages.table, model_sha256=packages.model_sha256)
    assert (made, failed) == (1, [])
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "set.json"}


def test_a_repair_that_makes_other_bytes_says_so(packages: Packages, copy: Path) -> None:
    path = copy / "sets" / "000" / "000000" / "set.json"
    info = json.loads(path.read_text())
    name = next(name for name in info["files"] if name.endswith(".flac"))
    info["files"][name] = "0" * 64
    path.write_text(json.dumps(info))
    found = check_corpus(copy).findings
    assert [one.kind for one in found] == ["changed"]
    _, failed = repair_corpus(copy, found, packages=packages.table, model_sha256=packages.model_sha256)
    assert "with other bytes" in failed[0].error


def test_a_folder_without_a_corpus_is_none(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"corpus\.json: there is no such file"):
        check_corpus(tmp_path)


def test_the_commands_make_check_and_repair(packages: Packages, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astrape.corpus.packages.PACKAGES", packages.table)
    monkeypatch.setattr("astrape.corpus.packages.MODEL_SHA256", packages.model_sha256)
    words = ("corpus", "make", "parallel", "--work", work, "--hours", 0.004, "--flite", 0, "--no-recordings")
    made = astrape(*words, "--json")
    assert made.exit_code == 0, made.output
    found = json.loads(made.stdout)
    assert found["made"] == found["sets"] == found["corpus"]["sets"] > 1
    assert found["corpus"]["hours"]["train"] > 0.002
    assert found["failed"] == []
    assert "sets to make, about" in made.stderr
    again = astrape(*words)
    assert again.exit_code == 0
    assert f"0 of {found['sets']} sets made, {found['sets']} were there" in again.stdout
    assert astrape("check-cache", "--cache", work).exit_code == 0
    path = sorted(work.rglob("*.flac"))[0]
    sound = path.read_bytes()
    cut(path)
    checked = astrape("check-cache", "--cache", work)
    assert checked.exit_code == 1
    assert f"{path}: ends before its" in checked.stdout
    repaired = astrape("check-cache", "--cache", work, "--repair", "--json")
    assert repaired.exit_code == 0, repaired.output
    assert json.loads(repaired.stdout)[0]["repaired"] == 1
    assert path.read_bytes() == sound


def test_wrong_words_are_one_line(tmp_path: Path) -> None:
    for words, told in (
        (("--work", tmp_path, "--warps", 2), "--warps"),
        (("--work", tmp_path, "--jobs", 0), "--jobs"),
        ((), "--work"),
    ):
        result = astrape("corpus", "make", "parallel", *words)
        assert result.exit_code != 0
        assert told in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert "astrape corpus make parallel" in astrape("corpus", "make", "parallel", "--help").output
