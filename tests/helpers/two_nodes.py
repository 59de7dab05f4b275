"""Two machines on one: network namespaces, each with an address of its own, joined by a cable.

Each namespace is held by a process that reads a pipe of this one, so that none stays behind when
this process and what it started there have ended, however they end. No name is taken outside: tests
may run in parallel.
"""

import os
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

ADDRESSES = ("10.77.0.1", "10.77.0.2")
CABLE = "cable0"  # its name on both nodes
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # where ip is, for every user


class NoNamespacesError(Exception):
    """Why two nodes cannot be made here."""


class Node:
    """One of the two.

    Args:
        address: of the node.
        unshare: the command that makes the namespace.
        user: whether the namespace belongs to a user namespace.
    """

    def __init__(self, address, unshare, user):
        self.address = address
        self.holder = subprocess.Popen(
            [*unshare, "--net", "sh", "-c", "echo ready; exec cat"], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if self.holder.stdout.readline() != "ready\n":
            why = self.holder.communicate(timeout=60)[1].strip()
            raise NoNamespacesError(why or f"{' '.join(unshare)} failed")
        as_user = ["--user", "--preserve-credentials"] if user else []
        self.enter_user = ["nsenter", "--target", str(self.holder.pid), *as_user]
        self.identity = os.readlink(f"/proc/{self.holder.pid}/ns/net")

    def ip(self, *words):
        """Run ``ip`` on the node."""
        command = [*self.enter_user, "--net", "ip", *words]
        environ = {**os.environ, "PATH": PATH}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise NoNamespacesError(
                f"{' '.join(command[-len(words) - 1 :])}: {done.stderr.strip()}"
            )

    def start(self, command, log, cwd, environ):
        """Start a command on the node; its output goes to a file."""
        with log.open("w") as file:
            return subprocess.Popen(
                [*self.enter_user, "--net", *map(str, command)], cwd=cwd, env=environ,
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def processes(self):
        """Ids of the processes on the node, without the one that holds it."""
        found = set()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(path / "ns/net") == self.identity:
                    found.add(int(path.name))
            except OSError:  # it has ended, or is another user's
                pass
        return found - {self.holder.pid}

    def kill(self):
        """End all processes of the node with SIGKILL."""
        for _ in range(600):  # those of a dead parent stay in /proc for a moment
            pids = self.processes()
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if not pids:
                return
            time.sleep(0.1)
        raise AssertionError(f"processes {pids} of node {self.address} do not end")

    def unplug(self):
        """Take the cable out: nothing reaches the other node, not even that a connection ends."""
        self.ip("link", "set", CABLE, "down")

    def plug_in(self):
        """Put the cable in again."""
        self.ip("link", "set", CABLE, "up")

    def close(self):
        """End all that runs on the node, and the node."""
        try:
            self.kill()
        finally:
            self.holder.communicate(timeout=60)


@contextmanager
def two_nodes():
    """The two joined nodes.

    Raises:
        NoNamespacesError: a tool is missing, or namespaces are not allowed.
    """
    missing = [tool for tool in ("ip", "unshare", "nsenter") if not shutil.which(tool, path=PATH)]
    if missing:
        raise NoNamespacesError(f"{', '.join(missing)} (iproute2, util-linux) not found")
    user = os.geteuid() != 0
    own = ["unshare", *(["--user", "--map-root-user"] if user else [])]
    with ExitStack() as stack:
        first = Node(ADDRESSES[0], own, user)
        stack.callback(first.close)
        # In the same user namespace, or the cable could not end there.
        second = Node(ADDRESSES[1], [*first.enter_user, "unshare"] if user else own, user)
        stack.callback(second.close)
        ends = ["name", CABLE, "netns", str(second.holder.pid)]
        first.ip("link", "add", CABLE, "type", "veth", "peer", *ends)
        for node in (first, second):
            node.ip("address", "add", f"{node.address}/24", "dev", CABLE)
            node.ip("link", "set", "lo", "up")
            node.plug_in()
        yield first, second
