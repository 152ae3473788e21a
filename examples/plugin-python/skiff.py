#!/usr/bin/env python3
"""A plugin to be copied: that of Skiff, an engine that does not exist.

Skiff's containers lie in the store that it shares with others, with {"skiff": NAME} as their metadata, and
in a file of its own it writes down with which process it started each. examples/plugin-go is the same plugin
in Go, docs/plugin-guide.md explains both.
"""

import contextlib
import fcntl
import json
import os
import select
import signal

from unmoor_plugin import Plugin, Problem, Unavailable, serve

FILE = os.environ.get("SKIFF_STATE", "/var/lib/skiff/state.json")


class Skiff(Plugin):
    """The engine: its file. Skiff enters a container there before it makes it in the store, so what the file
    does not have is not Skiff's."""

    name = "skiff"
    engine = "Skiff"
    hints = [{"metadataKey": "skiff"}]

    def check(self):
        read({"graphRoot": "/"})

    def claim(self, store, containers):
        known = read(store)["containers"]
        return [report(c["id"], known[c["id"]]) if c["id"] in known else
                {"id": c["id"], "ownership": "not_mine", "evidence": []} for c in containers]

    def list(self, store):
        return [report(id, c) for id, c in read(store)["containers"].items()]

    def stop(self, store, handle, grace):
        c = read(store)["containers"].get(handle["container"]["id"])
        if c is None or c["pid"] == 0:
            return  # gone meanwhile, or never started
        unchanged(c, handle)
        try:
            # What is opened here stays that process, and no later one can get the signal.
            fd = os.pidfd_open(c["pid"])
        except ProcessLookupError:
            return
        try:
            end(c, fd, grace)
        except ProcessLookupError:
            pass  # by itself
        finally:
            os.close(fd)

    def remove(self, store, handle):
        """Deletes the entry. What the store has of the container, Unmoor deletes afterwards."""
        id = handle["container"]["id"]
        with edit(store) as containers:
            c = containers.get(id)
            if c is None:
                return  # gone meanwhile
            if runs(c):
                raise Problem("still_in_use", f"process {c['pid']} runs")
            unchanged(c, handle)
            del containers[id]


def read(store):
    """The file's content; of another store's containers none."""
    try:
        with open(FILE, encoding="utf-8") as f:
            state = json.load(f)
        same = os.path.normpath(state["graphRoot"]) == os.path.normpath(store["graphRoot"])
        return state if same else {**state, "containers": {}}
    except FileNotFoundError as e:
        raise Unavailable(str(e), absent=True)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Unavailable(f"read {FILE}: {e!r}")


@contextlib.contextmanager
def edit(store):
    """Changes the file, which is the old one or the new one whenever it is read. The engine takes the same lock."""
    with open(FILE + ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = read(store)
        before = len(state["containers"])
        yield state["containers"]
        if len(state["containers"]) == before:
            return
        with open(FILE + ".new", "w", encoding="utf-8") as f:
            json.dump(state, f, indent=2)
        os.replace(FILE + ".new", FILE)


def revision(c):
    """Differs once the container was started anew; a stop changes nothing of it."""
    return f"{c['pid']}.{c['startTime']}"


def unchanged(c, handle):
    if revision(c) != handle["report"].get("revision"):
        raise Problem("revision_mismatch", "it was started anew")


def runs(c):
    """Whether the process lives. One that has ended and waits for its parent does not."""
    try:
        with open(f"/proc/{c['pid']}/stat", "rb") as f:
            # Fields 3 and on come after the name, which may have brackets in it.
            fields = f.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in (b"Z", b"X") and int(fields[19]) == c["startTime"]


def report(id, c):
    mine = {"id": id, "ownership": "mine", "displayName": c["name"], "revision": revision(c)}
    try:
        if not runs(c):
            return {**mine, "state": "stopped", "use": "idle", "evidence": []}
    except (OSError, ValueError, IndexError) as e:
        # "Could not find out" is not "no": unknown keeps the container.
        evidence = {"kind": "record", "detail": f"look at process {c['pid']}: {e!r}"}
        return {**mine, "state": "running", "use": "unknown", "evidence": [evidence]}
    evidence = {"kind": "process", "detail": "started by skiff",
                "process": {"pid": c["pid"], "startTime": c["startTime"]}}
    return {**mine, "state": "running", "use": "in_use", "evidence": [evidence]}


def end(c, fd, grace):
    """Ends the process of a pidfd, if it is the container's."""
    if not runs(c):
        return
    ended = select.poll()
    ended.register(fd, select.POLLIN)
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 60)):
        if seconds > 0:
            signal.pidfd_send_signal(fd, number)
            if ended.poll(min(seconds, 86400) * 1000):
                return
    raise Problem("failed", f"process {c['pid']} does not end")


if __name__ == "__main__":
    serve(Skiff(), version="1")
