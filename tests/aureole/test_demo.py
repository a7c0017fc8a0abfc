"""The demo: its first step alone, and all of it with little time."""

from pathlib import Path

from aureole.commands import demo
from aureole.exits import ExitCode


def test_first_step(aureole):
    ended = aureole("demo", "--quick")
    assert ended.code == ExitCode.ROBUST
    assert "ROBUST" in ended.out
    assert not Path("out").exists()


def test_all_steps(aureole, monkeypatch):
    monkeypatch.setattr(demo, "GROW_SECONDS", 5.0)
    ended = aureole("demo", "--out", "shown")
    assert ended.code == ExitCode.ROBUST
    for words in ("provably in", "provably out", "attackable", "weighted size", "What was shown", "taken on trust"):
        assert words in ended.out
    assert (Path("shown") / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    assert (Path("shown") / "heatmap.layers.json").is_file()


def test_the_time_limits_leave_room_in_two_minutes():
    assert demo.LABELS_SECONDS + demo.GROW_SECONDS + demo.RECHECK_SECONDS <= 100
