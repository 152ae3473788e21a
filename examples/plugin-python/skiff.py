#!/usr/bin/env python3
"""A plugin to be copied: that of Skiff, an engine that does not exist.

Skiff's containers lie in the store that it shares with others, with {"skiff": NAME} as their metadata, and
in a file of its own it writes down with which process it started each. examples/plugin-go is the same plugin
in Go, docs/plugin-guide.md explains both. It needs python3-varlink (31 or later).

Usage: skiff.py [--socket PATH]
The socket may also be passed in (LISTEN_FDS), as Unmoor and systemd do.
"""

import argparse
import concurrent.futures
import contextlib
import fcntl
import json
import os
import pathlib
import select
import signal
import socket
import struct
import sys

import varlink

FILE = os.environ.get("SKIFF_STATE", "/var/lib/skiff/state.json")
INTERFACE = "io.unmoor.Plugin"
VERSION = 1
BATCH = 1024


def interface_dir():
    """Where io.unmoor.Plugin.varlink is: in Unmoor's tree, or where `make install` puts it."""
    tree = pathlib.Path(__file__).resolve().parents[2]
    for directory in (tree / "varlink", "/usr/local/share/unmoor", "/usr/share/unmoor"):
        if os.path.exists(f"{directory}/{INTERFACE}.varlink"):
            return str(directory)
    sys.exit(f"{INTERFACE}.varlink is nowhere")


def error(name, **parameters):
    return varlink.VarlinkError({"error": f"{INTERFACE}.{name}", "parameters": parameters})


class Problem(Exception):
    """Why one container was not stopped or removed."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


# The engine: its file. Skiff enters a container there before it makes it in the store, so what the file does
# not have is not Skiff's.


def read(store):
    """The file's content; of another store's containers none."""
    try:
        with open(FILE, encoding="utf-8") as f:
            state = json.load(f)
        same = os.path.normpath(state["graphRoot"]) == os.path.normpath(store["graphRoot"])
        return state if same else {**state, "containers": {}}
    except FileNotFoundError as e:
        raise error("EngineUnavailable", reason=str(e), absent=True)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise error("EngineUnavailable", reason=f"read {FILE}: {e!r}")


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
    """Differs once the container was started anew; a stop changes nothing."""
    return f"{c['pid']}.{c['startTime']}"


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


def stop(c, handle, grace):
    """Ends one container's process, with seconds of grace."""
    if c is None or c["pid"] == 0:
        return  # gone meanwhile, or never started
    if revision(c) != handle["report"].get("revision"):
        raise Problem("revision_mismatch", "it was started anew")
    try:
        # What is opened here stays that process, and no later one can get the signal.
        fd = os.pidfd_open(c["pid"])
    except ProcessLookupError:
        return
    try:
        if not runs(c):
            return
        ended = select.poll()
        ended.register(fd, select.POLLIN)
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 60)):
            if seconds <= 0:
                continue
            signal.pidfd_send_signal(fd, number)
            if ended.poll(min(seconds, 86400) * 1000):
                return
        raise Problem("failed", f"process {c['pid']} does not end")
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def remove(containers, handle):
    """Deletes one entry. What the store has of the container, Unmoor deletes afterwards."""
    id = handle["container"]["id"]
    c = containers.get(id)
    if c is None:
        return  # gone meanwhile
    if runs(c):
        raise Problem("still_in_use", f"process {c['pid']} runs")
    if revision(c) != handle["report"].get("revision"):
        raise Problem("revision_mismatch", "it was started anew")
    del containers[id]


def outcome(handle, act):
    id = handle["container"]["id"]
    try:
        act()
        return {"id": id}
    except Problem as e:
        return {"id": id, "problem": e.kind, "message": str(e)}
    except varlink.VarlinkError as e:
        return {"id": id, "problem": "failed", "message": e.parameters()["reason"]}
    except Exception as e:  # costs this container, and not the others
        return {"id": id, "problem": "failed", "message": repr(e)}


# The protocol.

service = varlink.Service(vendor="Unmoor", product="skiff", version="1", url="https://github.com/unmoor/unmoor",
                          interface_dir=interface_dir())


def admit(version, parameter=None, batch=(), id=lambda c: c["id"]):
    if version != VERSION:
        raise error("UnsupportedProtocolVersion", supported=[VERSION])
    ids = {id(one) for one in batch}
    if len(batch) > BATCH or len(ids) < len(batch):
        raise varlink.InvalidParameter(parameter)


@service.interface(INTERFACE)
class Plugin:
    def Describe(self, _more=False, _request=None):
        def description():
            ready = True
            try:
                read({"graphRoot": "/"})
            except varlink.VarlinkError:
                ready = False
            return {"name": "skiff", "engine": "Skiff", "protocolVersions": [VERSION],
                    "capabilities": ["stop", "remove", "list"], "claimHints": [{"metadataKey": "skiff"}], "ready": ready}

        if not _more:
            return description()
        return self.watch(description, _request)

    @staticmethod
    def watch(description, request):
        """Says what the plugin is whenever that has changed, until the caller goes away."""
        gone = select.poll()
        gone.register(request, 0)  # POLLHUP is always told of
        said = None
        while True:
            if (now := description()) != said:
                said = now
                yield {**now, "_continues": True}
            if gone.poll(1000):
                return

    def Claim(self, protocolVersion, store, containers):
        admit(protocolVersion, "containers", containers)
        known = read(store)["containers"]
        return {"reports": [report(c["id"], known[c["id"]]) if c["id"] in known else
                            {"id": c["id"], "ownership": "not_mine", "evidence": []} for c in containers]}

    def List(self, protocolVersion, store):
        admit(protocolVersion)
        return {"reports": [report(id, c) for id, c in read(store)["containers"].items()]}

    def Stop(self, protocolVersion, store, handles, gracePeriodMs, _more=False):
        admit(protocolVersion, "handles", handles, lambda h: h["container"]["id"])
        if gracePeriodMs < 0:
            raise varlink.InvalidParameter("gracePeriodMs")
        known = read(store)["containers"]

        def one(handle):
            return outcome(handle, lambda: stop(known.get(handle["container"]["id"]), handle, gracePeriodMs / 1000))

        # All side by side, and to their end: also where the caller goes away meanwhile.
        with concurrent.futures.ThreadPoolExecutor(max(len(handles), 1)) as pool:
            pending = {pool.submit(one, h) for h in handles}
            outcomes = []
            while pending:
                done, pending = concurrent.futures.wait(pending, timeout=3, return_when=concurrent.futures.FIRST_COMPLETED)
                outcomes += [f.result() for f in done]
                if _more and pending:
                    yield {"outcomes": outcomes, "_continues": True}  # without any: a sign of life
                    outcomes = []
        yield {"outcomes": outcomes, "_continues": False}

    def Remove(self, protocolVersion, store, handles):
        admit(protocolVersion, "handles", handles, lambda h: h["container"]["id"])
        try:
            with edit(store) as containers:
                outcomes = [outcome(h, lambda: remove(containers, h)) for h in handles]
        except OSError as e:  # the file is as it was
            raise error("EngineUnavailable", reason=f"write {FILE}: {e}")
        return {"outcomes": outcomes}


class Handler(varlink.RequestHandler):
    service = service


class Server(varlink.ThreadingServer):
    request_queue_size = 64
    # At the end nobody waits for callers; the threads of a running Stop are no daemons, and waited for.
    daemon_threads = True

    def verify_request(self, request, client_address):
        """Only root and the plugin's own user are answered."""
        _, uid, _ = struct.unpack("3i", request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return uid in (0, os.geteuid())

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a caller that went away
            super().handle_error(request, client_address)


def clear(path):
    """Removes a socket that nobody serves any more."""
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(path)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            os.unlink(path)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--socket", metavar="PATH", default="/run/unmoor/plugins/skiff.sock")
    path = arguments.parse_args().socket
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if "LISTEN_FDS" not in os.environ:
        clear(path)
    os.umask(0o177)
    with Server(f"unix:{path}", Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
