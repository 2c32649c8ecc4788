"""The files for containers say what an engine takes, and the program; no engine is needed to see it."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cronflowd import __version__
from cronflowd.cli import cli
from tests.lib.yaml_subset import documents

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "contrib" / "container"
IMAGE = f"cronflowd:{__version__}"


def instructions() -> list[tuple[str, str]]:
    """What the Dockerfile says, in order."""
    text = re.sub(r"^#.*\n", "", (PLACE / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").strip().split("\n")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def last(word: str) -> str:
    return [rest for name, rest in instructions() if name == word][-1]


def understood(words: list[str]) -> bool:
    """Whether the program takes these arguments."""
    cli.parser().parse_args([word.replace("$(POD_NAME)", "pod-0") for word in words])
    return True


def kubernetes() -> list[dict[str, Any]]:
    return [
        found for path in sorted((PLACE / "kubernetes").iterdir()) for found in documents(path.read_text())
    ]


HOST = documents((PLACE / "compose-host.yaml").read_text())[0]
COMPOSE = documents((PLACE / "compose.yaml").read_text())[0]
WORKLOADS = [each for each in kubernetes() if each["kind"] == "StatefulSet"]


# --- the image -----------------------------------------------------------------------------------


def test_the_image_is_slim_pinned_and_runs_as_nobody_special() -> None:
    """Root in a container is root too near to the machine."""
    bases = [rest.split() for name, rest in instructions() if name == "FROM"]
    assert [base[0] for base in bases] == ["python:3.13-slim-bookworm"] * 2
    assert re.fullmatch("[1-9][0-9]+:[1-9][0-9]+", last("USER"))
    words = [name for name, _ in instructions()]
    assert words.index("USER") > max(at for at, name in enumerate(words) if name in ("RUN", "COPY"))
    assert not {"ADD", "MAINTAINER", "ONBUILD", "SHELL"} & set(words)
    for name, rest in instructions():
        if name == "RUN":
            assert not re.search(r"sudo|curl|wget|apt-get|chmod 777", rest)
            assert "pip install" not in rest or "--no-cache-dir" in rest


def test_what_is_copied_is_there_and_sent_to_the_engine() -> None:
    """A build that lacks a file fails at everybody but the author."""
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            assert set(sources) <= sent
            assert all((ROOT / source).exists() for source in sources)


def test_its_commands_need_no_shell_and_are_the_program_s_own() -> None:
    """A shell as process 1 would keep TERM to itself."""
    assert json.loads(last("ENTRYPOINT")) == ["cronflowd"]
    assert understood(json.loads(last("CMD")))
    program, *words = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert (program, words) == ("cronflowd", ["ping"])
    assert understood(words)
    assert last("STOPSIGNAL") == "SIGTERM"


def test_what_people_install_has_all_kinds_of_jobs_and_the_core_stays_slim() -> None:
    """type=http in the first five minutes, without a second pip; and a bare worker pays for nothing."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    assert extras["all"].split() == ["cronflowd[holidays,http,web]"]
    assert "cronflowd[all]" in extras["test"].split()
    assert not {"httpx2", "holidays", "litestar"} & set(
        re.findall(r"\w+", setup["options"]["install_requires"])
    )
    run = (ROOT / "Makefile").read_text().partition(".venv/run.stamp: ")[2].partition("\n\n")[0]
    assert "--editable '.[all]'" in run
    assert "pip install '.[all]'" in (ROOT / "README.md").read_text()
    assert "'/source[all]'" in (PLACE / "Dockerfile").read_text()


# --- compose -------------------------------------------------------------------------------------


def test_compose_has_a_daemon_its_http_door_and_two_workers() -> None:
    """Whose commands the program takes, and whose volumes and secrets are declared."""
    services = COMPOSE["services"]
    assert list(services) == ["cronflowd", "web", "worker-1", "worker-2"]
    for service in services.values():
        base = services[service["extends"]["service"]] if "extends" in service else {}
        whole = base | service
        assert whole["image"] == IMAGE
        assert whole["cap_drop"] == ["ALL"]
        assert understood(whole["command"])
        assert {volume.partition(":")[0] for volume in whole["volumes"]} <= set(COMPOSE["volumes"])
        assert set(whole["secrets"]) <= set(COMPOSE["secrets"])
        # Jobs can read it: what lets in whoever gives orders is not among a worker's.
        secret = "worker-token" if whole["command"][0] == "worker" else "token"
        assert whole["secrets"] == [secret]
        assert f"/run/secrets/{secret}" in whole["command"]
    mounted = [services[name]["volumes"] for name in services]
    assert len(mounted) == len({str(each) for each in mounted}), "each has a state of its own"
    assert (
        PLACE / services["cronflowd"]["build"]["context"] / services["cronflowd"]["build"]["dockerfile"]
    ).exists()


def test_the_ports_are_open_to_this_machine_alone() -> None:
    """Whoever reaches them can run commands, or guess who may."""
    assert COMPOSE["services"]["cronflowd"]["ports"] == ["127.0.0.1:5050:5050"]
    assert COMPOSE["services"]["web"]["ports"] == ["127.0.0.1:3000:3000"]


def test_the_http_door_finds_the_daemon_and_is_asked_whether_it_lives() -> None:
    """The image's own check asks the daemon's socket, which is not there."""
    daemon, web = COMPOSE["services"]["cronflowd"]["command"], COMPOSE["services"]["web"]
    listens = [word.rpartition(":")[2] for word in daemon if word.startswith("0.0.0.0:")]
    said = dict(zip(web["command"][1::2], web["command"][2::2], strict=True))
    assert [said["--control"], said["--worker-door"]] == [f"cronflowd:{port}" for port in listens]
    kind, program, _, script = web["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    compile(script, "healthcheck", "exec")
    assert f"http://127.0.0.1:{said['--http'].rpartition(':')[2]}/healthz" in script


def test_a_host_of_three_has_an_etcd_a_daemon_and_a_worker() -> None:
    """All that is declared is used, and the other way round; each host says who it is in the same words."""
    services, text = HOST["services"], (PLACE / "compose-host.yaml").read_text()
    assert list(services) == ["etcd", "cronflowd", "worker"]
    used = [secret for service in services.values() for secret in service["secrets"]]
    assert set(used) == set(HOST["secrets"])
    assert [service["volumes"][0].partition(":")[0] for service in services.values()] == list(HOST["volumes"])
    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(
        re.findall(r"(\w+)=", text.partition("export ")[2].split("\n")[0])
    )
    for service in services.values():
        named = {word.rpartition("/")[2] for word in service["command"] if word.startswith("/run/secrets/")}
        assert named | {"key"} == {*service["secrets"], "key"}
        assert service["network_mode"] == "host"
    assert services["worker"]["secrets"] == ["tls-ca", "worker-token"], "jobs can read them"
    for name in ("cronflowd", "worker"):
        assert services[name]["image"] == IMAGE
        assert services[name]["cap_drop"] == ["ALL"]
        filled = [
            re.sub(r"\$\{(HOST\d?|TZ|N)\}", lambda m: {"TZ": "UTC", "N": "1"}.get(m[1], "10.0.0.1"), word)
            for word in services[name]["command"]
        ]
        assert understood(filled)
    assert "key" in services["cronflowd"]["secrets"]
    assert services["cronflowd"]["environment"] == {"CREDENTIALS_DIRECTORY": "/run/secrets"}
    for words in re.findall(r"#   compose exec (?:-T )?cronflowd cronflowd ([a-z]+)", text):
        assert understood([words])


# --- kubernetes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("each", WORKLOADS, ids=lambda each: each["metadata"]["name"])
def test_a_workload_is_whole(each: dict[str, Any]) -> None:
    """What refers to something else refers to something that is there."""
    spec, pod = each["spec"], each["spec"]["template"]["spec"]
    labels = each["spec"]["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == last("USER")
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]
    assert understood(container["args"])
    volumes = [volume["name"] for volume in pod["volumes"]]
    volumes += [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]]
    assert sorted(mount["name"] for mount in container["volumeMounts"]) == sorted(volumes)
    token = container["args"][container["args"].index("--token-file") + 1]
    assert str(Path(token).parent) in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert [volume["secret"]["defaultMode"] for volume in pod["volumes"]] == [0o440]
    assert [volume["secret"]["secretName"] for volume in pod["volumes"]] == [each["metadata"]["name"]]


def test_the_daemon_is_one_and_its_probes_are_commands_of_the_program() -> None:
    """Two on one journal cannot be; and a slow start is no reason to end it."""
    (daemon,) = (each for each in WORKLOADS if each["metadata"]["name"] == "cronflowd")
    (container,) = daemon["spec"]["template"]["spec"]["containers"]
    assert daemon["spec"]["replicas"] == 1
    for probe in ("startupProbe", "livenessProbe"):
        program, *words = container[probe]["exec"]["command"]
        assert program == "cronflowd"
        assert understood(words)
    start = container["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 900, "as TimeoutStartSec= of the unit"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert container["readinessProbe"]["tcpSocket"]["port"] in ports
    (service,) = (each for each in kubernetes() if each["kind"] == "Service")
    assert service["spec"]["selector"] == daemon["spec"]["template"]["metadata"]["labels"]
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    listens = [word for word in container["args"] if re.fullmatch(r"0\.0\.0\.0:\d+", word)]
    assert [int(word.partition(":")[2]) for word in listens] == list(ports.values())


def test_workers_find_the_daemon_s_service() -> None:
    """By its name and port."""
    (worker,) = (each for each in WORKLOADS if each["metadata"]["name"] == "cronflowd-worker")
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    assert container["args"][:3] == ["worker", "--connect", "cronflowd:5051"]
    assert "$(POD_NAME)" in container["args"]
    assert "POD_NAME" in [each["name"] for each in container["env"]]
    assert worker["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    "text",
    ["a: no", "a: 0440", "a: &x 1", "a: |", "a: b: c", "a:\n  - b\n c: 1", "a: 1\na: 2", "a: 'x'", "\ta: 1"],
)
def test_what_yaml_could_misunderstand_is_refused(text: str) -> None:
    """The reader is strict, so that what it reads means the same to every engine."""
    with pytest.raises(ValueError, match=r"no plain word|no key|indented|beside"):
        documents(text)


def test_the_reader_reads_what_it_should() -> None:
    """Else all of the above would prove nothing."""
    text = 'a: 1\nb:\n  - x: ["y"]\n    z: true\n  - "w"\nc:\n  d: e:5\n---\nf: {}\n'
    expected = [{"a": 1, "b": [{"x": ["y"], "z": True}, "w"], "c": {"d": "e:5"}}, {"f": {}}]
    assert documents(text) == expected
