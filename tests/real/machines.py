"""Machines of their own, as the kernel's network namespaces are, and the wire between them, which can be cut.

Each has one address, and what it sends goes by way of a router in the middle. What is cut there
is dropped without a word, as by a switch that has failed: nobody is told, and connections stay open.
The namespaces are those of processes that read from us, so that they end with us however we end.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

CLONE_NEWNET = 0x40000000
T = TypeVar("T")


class Machine:
    """A network namespace; `within` begins a command that runs there."""

    def __init__(self, address: str = "") -> None:
        if missing := [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]:
            pytest.skip(f"no {missing[0]} here (Debian: util-linux, iproute2)")
        command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]
        self._holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._holder.stdout
        if self._holder.stdout.readline() != "up\n":
            _, why = self._holder.communicate()
            pytest.skip(f"network namespaces are not allowed here: {why.strip()}")
        self.address = address
        self.pid = self._holder.pid
        self.within = ("nsenter", f"--net=/proc/{self.pid}/ns/net")
        self._threads: ThreadPoolExecutor | None = None

    def run(self, script: str) -> None:
        done = subprocess.run(
            [*self.within, "sh", "-ec", script], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"the kernel cannot do this here: {script}: {done.stderr.strip()}")

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Calls it in a thread that is on this machine: sockets which it makes stay there."""
        self._threads = self._threads or ThreadPoolExecutor(4, initializer=self._enter)
        return self._threads.submit(function, *arguments).result()

    def _enter(self) -> None:
        with open(f"/proc/{self.pid}/ns/net") as space:  # os.setns is new in 3.12
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.setns(space.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())

    def close(self) -> None:
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
        self._holder.communicate()


class Net:
    """So many machines that reach each other."""

    def __init__(self, count: int) -> None:
        self.machines: list[Machine] = []
        self._router = Machine()
        try:
            self._router.run("echo 1 > /proc/sys/net/ipv4/ip_forward")
            for number in range(count):
                self._add(number)
        except BaseException:
            self.close()
            raise

    def _add(self, number: int) -> None:
        there, here = f"10.0.{number}.2", f"10.0.{number}.1"
        machine = Machine(there)
        self.machines.append(machine)
        self._router.run(
            f"ip link add m{number} type veth peer name eth0 netns {machine.pid}; "
            f"ip address add {here}/24 dev m{number}; ip link set m{number} up"
        )
        machine.run(
            f"ip address add {there}/24 dev eth0; ip link set eth0 up; ip route add default via {here}"
        )

    def cut(self, source: Machine, targets: list[Machine], *, both: bool = True) -> None:
        """Nothing comes through from one to the others any more; nor back, unless only this way is meant."""
        for target in targets:
            self._router.run(f"ip rule add from {source.address} to {target.address} blackhole")
            if both:
                self.cut(target, [source], both=False)

    def mend(self) -> None:
        """All of it is whole again."""
        self._router.run("while ip rule del blackhole 2>/dev/null; do :; done")

    def close(self) -> None:
        for machine in [*self.machines, self._router]:
            machine.close()
