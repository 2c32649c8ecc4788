"""The files for Prometheus and Grafana ask for figures that there are, and say what they mean."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cronflowd.ask.metrics import Family
from cronflowd.daemon.figures import families
from tests.ask.test_metrics import LIFE, asked
from tests.lib.core_driver import make_core
from tests.lib.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "contrib" / "prometheus"
ALERTS = (PROMETHEUS / "alerts.yml").read_text()
BOARD: dict[str, Any] = json.loads((ROOT / "contrib" / "grafana" / "cronflowd.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def promtool(*arguments: str, cwd: Path) -> str:
    command = ["promtool", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def of_the_daemon() -> list[Family]:
    """The figures of one that speaks TLS, which the harness does not."""
    core = make_core()
    core.certificate_until_at = datetime(2030, 1, 1, tzinfo=UTC)
    return list(families(core, (), 0))


@pytest.mark.parametrize("text", [ALERTS, json.dumps(BOARD)], ids=["alerts", "board"])
def test_every_figure_that_is_asked_for_is_there(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that was changed leaves an alert that never fires, and a panel without a line."""
    told = re.findall(r"# TYPE (\S+) (\S+)", asked(LIFE, tmp_path, monkeypatch))
    names = {
        name + end
        for name, kind in told
        for end in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }
    names.add("cronflowd_tls_certificate_end_timestamp_seconds")  # where TLS is spoken: the test below
    assert set(re.findall(r"\bcronflowd_[a-z_]+", text)) - names == set()


async def test_the_certificate_s_end_is_told_where_there_is_one() -> None:
    """Its alert is the only one that a healthy daemon of many months will ever raise."""
    (found,) = (each for each in await of_the_daemon() if each.name.startswith("tls_"))
    assert list(found.lines())[-1] == "cronflowd_tls_certificate_end_timestamp_seconds 1893456000.0"


@needs_promtool
def test_the_alerts_begin_when_they_should_and_not_before(tmp_path: Path) -> None:
    """Each rule is tried with series that raise it, and with some that look alike."""
    shutil.copy(PROMETHEUS / "alerts.yml", tmp_path)
    cases = ROOT / "tests" / "data" / "alerts_test.yml"
    shutil.copy(cases, tmp_path)
    promtool("check", "rules", "alerts.yml", cwd=tmp_path)
    promtool("test", "rules", cases.name, cwd=tmp_path)
    alerts = re.findall(r"- alert: (\w+)", ALERTS)
    assert len(set(alerts)) == len(alerts)
    assert set(re.findall(r"alertname: (\w+)", cases.read_text())) == set(alerts)


@needs_promtool
def test_the_scrape_configuration_is_one(tmp_path: Path) -> None:
    """It is copied as it is, and the alerts lie beside it."""
    shutil.copytree(PROMETHEUS, tmp_path, dirs_exist_ok=True)
    promtool("check", "config", "--syntax-only", "scrape.yml", cwd=tmp_path)


@needs_promtool
def test_every_query_of_the_board_can_be_read(tmp_path: Path) -> None:
    """Grafana shows what is wrong only to whoever opens the panel."""
    values = {"$__rate_interval": "5m", "$instance": ".*"}
    queries = [re.sub(r"\$\w+", lambda match: values[match[0]], each) for each in QUERIES]
    rules = [{"record": f"query:{number}", "expr": each} for number, each in enumerate(queries)]
    (tmp_path / "board.yml").write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    promtool("check", "rules", "board.yml", cwd=tmp_path)


def test_the_board_is_whole() -> None:
    """It is imported as it is: nothing lies over something else, and all of it asks the chosen source."""
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    sources = [each["datasource"] for panel in PANELS for each in (panel, *panel["targets"])]
    assert all(each == {"type": "prometheus", "uid": "${datasource}"} for each in sources)
    assert [each["name"] for each in BOARD["templating"]["list"]] == ["datasource", "instance"]
    assert all('instance=~"$instance"' in each for each in QUERIES)
    assert all(panel["title"] and panel["fieldConfig"]["defaults"]["unit"] for panel in PANELS)
