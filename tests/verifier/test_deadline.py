import math

import pytest

from verifier import deadline
from verifier.deadline import Deadline
from verifier.errors import InputError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(deadline.time, "monotonic", lambda: now[0])
    return now


def test_no_limit_never_expires(clock: list[float]) -> None:
    for forever in (Deadline(), Deadline.after(None), Deadline.after(math.inf)):
        clock[0] = 1e12
        assert forever.remaining() == math.inf
        assert not forever.has_expired


def test_a_limit_counts_down_to_zero_and_no_further(clock: list[float]) -> None:
    limit = Deadline.after(5.0)
    assert limit.remaining() == 5.0
    clock[0] = 104.0
    assert limit.remaining() == 1.0
    assert not limit.has_expired
    clock[0] = 105.0
    assert limit.has_expired
    clock[0] = 107.0
    assert limit.remaining() == 0.0


def test_no_time_at_all_has_expired_at_once(clock: list[float]) -> None:
    assert Deadline.after(0.0).has_expired


def test_within_takes_the_earlier_of_the_two(clock: list[float]) -> None:
    limit = Deadline.after(5.0)
    assert limit.within(2.0) == Deadline(102.0)
    assert limit.within(9.0) == limit
    assert Deadline().within(1.0) == Deadline(101.0)


@pytest.mark.parametrize("seconds", [-1.0, -math.inf, math.nan])
def test_negative_or_nan_limits_are_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="wanted a number >= 0"):
        Deadline.after(seconds)
