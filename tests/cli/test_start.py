"""Start and end of the command: help and completion load no PyTorch, and Ctrl-C is reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import astrape as package
from astrape.blocks import block_class, block_names
from astrape.cli import cli
from astrape.graph.recipe import shipped_recipes
from astrape.voice import names
from astrape.voice.evaluation.conditions import CONDITIONS
from astrape.voice.evaluation.context import Tools
from astrape.voice.evaluation.pitch import TRACKERS
from astrape.voice.evaluation.published import REFERENCES
from astrape.voice.evaluation.registry import available
from tests.cli.audio import IDENTITY, astrape, fails, noise, write

HEAVY = ("torch", "numpy", "rich", "soundfile", "yaml", "networkx", "hypothesis")

STARTED = f"""
import atexit, json, sys
def tell():
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    print(json.dumps([loaded, len(sys.modules)]), file=sys.stderr)
atexit.register(tell)
from astrape.cli import main
main()
"""


def started(*words: str, **variables: str) -> tuple[str, list[str], int]:
    """The command in a process of its own: what it prints, the heavy packages it has loaded, and how many modules."""
    done = subprocess.run(
        [sys.executable, "-c", STARTED, *words], capture_output=True, text=True, env={**os.environ, **variables}
    )
    assert done.returncode == 0, done.stderr
    loaded, modules = json.loads(done.stderr.strip().splitlines()[-1])
    return done.stdout, loaded, modules


def completed(line: str) -> tuple[list[str], list[str]]:
    """A shell's completions for the last word of a line, and the heavy packages that were loaded for them."""
    words = line.split(" ")
    said, loaded, _ = started(
        _ASTRAPE_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), PATH=os.environ["PATH"]
    )
    return [offer.partition(",")[2] for offer in said.splitlines()], loaded


def test_help_loads_nothing_heavy_and_takes_little() -> None:
    said, loaded, modules = started("--help")
    assert all(name in said for name in cli.commands)
    assert loaded == []
    # Some 230, which take 0.2 s of CPU; seconds themselves depend on what else the machine does.
    assert modules < 300


HELPED = f"""
import json, os, sys
from astrape.cli import cli, main
for name in cli.commands:
    child = os.fork()
    if not child:
        sys.stdout = open(os.path.join(sys.argv[1], name), "w")
        try:
            main([name, "--help"])
        except SystemExit as ended:
            print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
            sys.stdout.flush()
            os._exit(ended.code or 0)
    assert os.waitpid(child, 0)[1] == 0, name
"""


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each command's help, from a process of its own that has loaded only the list of commands."""
    folder = tmp_path_factory.mktemp("helped")
    done = subprocess.run([sys.executable, "-c", HELPED, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_of_every_command_loads_nothing_heavy(name: str, helped: Path) -> None:
    said, _, loaded = (helped / name).read_text().rstrip().rpartition("\n")
    assert f"astrape {name}" in said
    assert loaded == "[]"


def test_the_shell_completes_commands_options_and_recipes_without_loading_anything_heavy() -> None:
    offered, loaded = completed("astrape ")
    assert set(offered) == set(cli.commands)
    assert loaded == []
    offered, loaded = completed("astrape report --mea")
    assert (offered, loaded) == (["--measure"], [])
    offered, loaded = completed("astrape report ")
    assert offered == sorted(shipped_recipes())
    assert loaded == []
    offered, loaded = completed("astrape evaluate --pitch ")
    assert offered == list(TRACKERS)
    assert loaded == []


def test_the_package_itself_loads_pytorch_with_what_needs_it() -> None:
    program = (
        "import sys, astrape\n"
        "assert astrape.__version__ and astrape.RecipeError and 'load' in dir(astrape)\n"
        "assert 'torch' not in sys.modules\n"
        "assert astrape.load('echo').name == 'echo' and astrape.blocks.Stream and astrape.testing.check_block\n"
        "assert astrape.voice.Converter.__name__ == 'Converter'\n"
        "from astrape import *\n"
        "assert compile is astrape.compile and Graph is astrape.graph.Graph\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing  # type: ignore[attr-defined]


def test_names_that_options_offer_are_those_that_there_are() -> None:
    assert tuple(available(Tools())) == names.METRICS
    assert tuple(TRACKERS) == names.TRACKERS
    assert tuple(REFERENCES) == names.REFERENCES
    assert tuple(CONDITIONS) == names.CONDITIONS
    assert names.ASTRAPE_SPEAKER in shipped_recipes()
    assert names.RECIPE in shipped_recipes()
    assert names.FROM_CODES in shipped_recipes()


def test_one_block_has_a_page_of_its_own() -> None:
    said = astrape("recipes", "--block", "stft").output
    assert "imaginary parts follow in the same order" in " ".join(said.split())
    assert "window=hann" in said
    assert "``" not in said
    for name in (name for name in block_names() if block_class(name).__module__.startswith("astrape.")):
        page = json.loads(astrape("recipes", "--block", name, "--json").stdout)
        assert page["name"] == name
        assert page["documentation"].split()[0] == (block_class(name).__doc__ or "").split()[0].strip("`")
        assert ":class:" not in page["documentation"]
    fails(astrape("recipes", "--block", "sftf"), "did you mean 'stft'?")
    fails(astrape("recipes", "--block", "stft", "--blocks"), "either")


def test_the_page_of_the_stft_tells_its_layout_truly() -> None:
    """Bin 3 of a cosine is real, of a sine imaginary: the channels that the page names."""
    import torch

    from astrape.blocks import STFT, Stream

    block = STFT(Stream(16000, 1), n_fft=16, hop=16, window="rectangular").double()
    time = torch.arange(16, dtype=torch.float64) * 2 * np.pi * 3 / 16
    bins = 16 // 2 + 1
    for wave, channel, value in ((time.cos(), 3, 8.0), (time.sin(), bins + 3, -8.0)):
        spectrum = block(wave[None, None])[0, :, 0]
        expected = torch.zeros(2 * bins, dtype=torch.float64)
        expected[channel] = value
        torch.testing.assert_close(spectrum, expected, atol=1e-12, rtol=0)


def interrupted(folder: Path, *words: Any) -> subprocess.CompletedProcess[str]:
    """The command, with a SIGINT as soon as it has begun to write."""
    process = subprocess.Popen(
        [sys.executable, "-m", "astrape", *map(str, words)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    before = set(folder.iterdir())
    while set(folder.iterdir()) == before and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_ctrl_c_is_told_and_leaves_what_was_there(tmp_path: Path) -> None:
    recipe = tmp_path / "identity.yaml"
    recipe.write_text(IDENTITY)
    source = write(tmp_path / "in.wav", noise(44100 * 120), 44100)
    target = tmp_path / "out.wav"
    target.write_bytes(b"as it was")
    done = interrupted(tmp_path, "run", recipe, source, target, "--chunk", "1")
    assert done.returncode == 130, done.stderr
    assert done.stderr == "astrape: interrupted: OUT is as it was before\n"
    assert target.read_bytes() == b"as it was"
    assert {path.name for path in tmp_path.iterdir()} == {"identity.yaml", "in.wav", "out.wav"}


WHILE_LOADING = """
import os, signal, sys
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
sys.argv = ["astrape", "check", "echo"]
from astrape.__main__ import main
main()
"""

IN_TEXT = '''
from astrape.cli import cli, main
from astrape.commands.console import command
@command("broken", "")
def broken():
    """Broken."""
    exec("raise KeyboardInterrupt")
cli.add_command(broken)
main(["broken"])
'''


@pytest.mark.parametrize("name", ["astrape.commands.wavlm", "torch", "torch.nn", "astrape.testing"])
def test_ctrl_c_is_told_while_the_command_is_loading(name: str) -> None:
    """An interrupt while PyTorch is loaded ends in an abort of C++, unless it waits until that is done."""
    done = subprocess.run([sys.executable, "-c", WHILE_LOADING.format(name=name)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "astrape: interrupted\n")


def test_ctrl_c_ends_with_its_code_wherever_it_comes() -> None:
    done = subprocess.run([sys.executable, "-c", IN_TEXT], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "astrape: interrupted\n")


def test_the_list_of_commands_is_cut_nowhere() -> None:
    said, _, _ = started("--help", COLUMNS="80")
    assert "..." not in said.partition("Commands:")[2]
    assert max(map(len, said.splitlines())) <= 80
