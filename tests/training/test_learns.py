"""Training learns: minutes on a minute of speech, scored on persons that it has never heard."""

from __future__ import annotations

from pathlib import Path

import pytest

SPEECH = Path(__file__).parent.parent / "audio" / "speech"


@pytest.mark.timeout(1800)
def test_the_small_twin_beats_what_takes_no_learning(tmp_path: Path) -> None:
    """Margins are about half of what this seed gives, for processors that round otherwise."""
    pytest.importorskip("accelerate")
    pytest.importorskip("tensorboard")
    from astrape.training.tiny.run import SHORT, run

    result = run(SPEECH, tmp_path, SHORT, print)
    print("\n".join(result.lines()))
    assert result.learned
    assert max(result.content) > result.front_alone + 0.02
    assert max(result.content) > result.mean_vector + 0.12
    assert result.content[-1] > result.content[0] + 0.03
    assert min(result.mel) < result.mean_spectrum - 0.1
    assert min(result.mel) < result.own_mean_spectrum
    assert min(result.mel) < result.silence / 2
    assert result.code_usage > 0.3
    assert result.encoder.finished
    assert result.decoder.finished
    assert list((tmp_path / "decoder" / "tensorboard").rglob("events*"))
