"""retry=: how long each attempt waits for the next one."""

from __future__ import annotations

import pytest

from cronflowd.tasks.options import parse_retry


@pytest.mark.parametrize(
    ("text", "delays"),
    [
        ("none", [None]),
        ("fixed:2:10s", [10, 10, None]),
        ("exp:4:1s", [1, 2, 4, 8, None]),
        ("exp:4:1s:3s", [1, 2, 3, 3, None]),
        ("exp:3:5s:x5", [5, 25, 125, None]),
        ("exp:3:5s:x5:1m", [5, 25, 60, None]),
        ("exp:3:5s:1m:x5", [5, 25, 60, None]),
        ("exp:3:5s:x1.5:~0%", [5, 7.5, 11.25, None]),
    ],
)
def test_delays(text: str, delays: list[float | None]) -> None:
    """Whoever counts on `fixed:3` gets four attempts; the last wait is followed by none."""
    retry = parse_retry(text)
    assert [retry.delay_s(attempt) for attempt in range(1, len(delays) + 1)] == delays


def test_a_thousand_attempts_wait_no_longer_than_thirty_days() -> None:
    """Doubling a second for a thousand times is more than a float holds."""
    retry = parse_retry("exp:1000:1s")
    assert retry.delay_s(1000) == 30 * 86_400


@pytest.mark.parametrize(("drawn", "delay_s"), [(0.0, 8), (0.5, 10), (1.0, 12)])
def test_jitter_makes_a_delay_shorter_or_longer(drawn: float, delay_s: float) -> None:
    """A hundred tasks that failed together must not come back together."""
    assert parse_retry("fixed:3:10s:~20%").delay_s(1, drawn) == pytest.approx(delay_s)
