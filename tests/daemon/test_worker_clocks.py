"""How far a worker's clock is off is judged without the time that its lines wait."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cronflowd.daemon.core import Core
from cronflowd.net.workers import MAX_OFFSET_S
from tests.lib.core_driver import Connect, until_quiet
from tests.lib.engine_driver import START
from tests.lib.harness import Wire

# Of each BEAT in turn: when it is read, how old it is then, and what it says of the last answer, if it does.
Beats = list[tuple[float, float, float | None]]


async def told(core: Core, connect: Connect, beats: Beats, offset_s: float) -> float:
    """By how much the clock of a worker seems to be off after these, where it is off by so much."""
    connect(wire := Wire("192.0.2.9:1"))
    wire.say("HELLO name=a slots=1")
    await until_quiet()
    for read_s, age_s, rtt_s in beats:
        core.clock.move(START + timedelta(seconds=read_s))  # type: ignore[attr-defined]
        now = START + timedelta(seconds=read_s - age_s + offset_s)
        wire.say(f"BEAT now={now.isoformat()}" + f" rtt={rtt_s}" * (rtt_s is not None))
        await until_quiet()
    found = core.links["a"].offset_s
    assert found is not None
    return found


@pytest.mark.parametrize(
    "beats",
    [
        [(10, 0.0, 0.01), (20, 7.5, 0.01), (30, 0.0, 8.0), (40, 0.0, 0.0)],
        [(10, 0.0, 0.01), (20, 0.1, 0.1), (30, 6.0, 0.2), (40, 7.0, 6.1), (50, 8.0, 7.0)],
        [(10, 0.0, 0.01), (25, 5.0, 0.01), (40, 10.0, None), (50, 10.0, None), (51, 0.0, 16.0)],
        [(10, 0.0, 4.0), (20, 3.9, 4.0), (30, 0.0, 4.0)],
    ],
)
async def test_what_waits_is_no_clock_that_is_off(
    core: Core, connect: Connect, caplog: pytest.LogCaptureFixture, beats: Beats
) -> None:
    """Behind thousands of outputs a BEAT is read seconds after it was written, and looks that old."""
    assert abs(await told(core, connect, beats, 0.0)) <= MAX_OFFSET_S
    assert "clock of worker" not in caplog.text


@pytest.mark.parametrize("offset_s", [-3600.0, -15.0, 15.0, 3600.0])
async def test_one_that_is_off_is_told_of_though_its_lines_wait(
    core: Core, connect: Connect, caplog: pytest.LogCaptureFixture, offset_s: float
) -> None:
    """Once; and the number is right when they wait no longer."""
    beats = [(20.0, 4.0, 5.0), (30.0, 5.0, 5.0), (40.0, 0.0, 6.0), (50.0, 0.0, 0.01), (60.0, 0.0, 0.01)]
    assert await told(core, connect, beats, offset_s) == pytest.approx(offset_s, abs=0.01)
    assert caplog.text.count("the clock of worker a is off by") == 1


@pytest.mark.parametrize("step_s", [-60.0, 60.0])
async def test_one_that_is_set_is_told_of(
    core: Core, connect: Connect, caplog: pytest.LogCaptureFixture, step_s: float
) -> None:
    """With the BEAT after the next at the latest."""
    beats = [(10.0, 0.0, 0.01), (20.0, -step_s, 0.01), (30.0, -step_s, 0.01)]
    assert await told(core, connect, beats, 0.0) == pytest.approx(step_s, abs=0.01)
    assert "the clock of worker a is off by" in caplog.text
