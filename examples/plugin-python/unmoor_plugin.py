"""Serves a plugin for Unmoor: io.unmoor.Plugin over python-varlink (31 or later).

A plugin derives from Plugin and calls serve(). This module does the socket, the checks of what comes in, the
signs of life during long calls, and turns exceptions into answers that keep the containers. It is to be
copied; plugins/sdk is the same in Go.
"""

import argparse
import concurrent.futures
import os
import pathlib
import select
import signal
import socket
import struct
import sys

import varlink

INTERFACE = "io.unmoor.Plugin"
VERSION = 1
BATCH = 1024
MESSAGE = 16 << 20


class Unavailable(Exception):
    """The engine cannot be asked at all; absent says that it is not on this machine."""

    def __init__(self, reason, advice=None, absent=None):
        super().__init__(reason)
        self.parameters = {"reason": reason, "advice": advice, "absent": absent}


class Problem(Exception):
    """Why one container was not stopped or removed: still_in_use, not_owner, revision_mismatch or failed."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


class Plugin:
    """Speaks for one engine. Its methods may be called from several threads at once."""

    name = ""  # of the socket, too
    engine = ""  # what its users call it
    hints = []  # what its containers look like in the store

    def check(self):
        """Raises Unavailable while the engine cannot answer."""

    def claim(self, store, containers):
        """Returns one report a container, without side effects."""
        raise NotImplementedError

    def stop(self, store, handle, grace):
        """Stops a container with seconds of grace; returns when it has ended, or raises Problem."""
        raise NotImplementedError

    def remove(self, store, handle):
        """Removes the engine's record; returns True where the storage went along, or raises Problem."""
        raise NotImplementedError

    # def list(self, store): returns a report about every container that the engine has in the store


class Service:
    """Answers the interface for one plugin."""

    def __init__(self, plugin):
        self.plugin = plugin
        if not hasattr(plugin, "list"):
            self.List = None  # MethodNotImplemented

    def Describe(self, _more=False, _request=None):
        return self.watch(_request) if _more else self.description()

    def description(self):
        ready = True
        try:
            self.plugin.check()
        except Exception:
            ready = False
        return {"name": self.plugin.name, "engine": self.plugin.engine, "protocolVersions": [VERSION],
                "capabilities": ["stop", "remove"] + (["list"] if self.List else []),
                "claimHints": self.plugin.hints, "ready": ready}

    def watch(self, request):
        """Says what the plugin is whenever that has changed, until the caller goes away."""
        gone = select.poll()
        gone.register(request, 0)  # a hang-up is always told of
        said = None
        while True:
            if (now := self.description()) != said:
                said = now
                yield {**now, "_continues": True}
            if gone.poll(5000):
                return

    def Claim(self, protocolVersion, store, containers, _message=None):
        admit(_message, "containers", [c["id"] for c in containers or ()])
        return {"reports": ask(self.plugin.claim, store, containers)}

    def List(self, protocolVersion, store, _message=None):
        admit(_message)
        return {"reports": ask(self.plugin.list, store)}

    def Stop(self, protocolVersion, store, handles, gracePeriodMs, _message=None, _more=False):
        admit(_message, "handles", [h["container"]["id"] for h in handles or ()])
        if gracePeriodMs < 0:
            raise varlink.InvalidParameter("gracePeriodMs")
        yield from act(_more, handles, lambda h: self.plugin.stop(store, h, gracePeriodMs / 1000))

    def Remove(self, protocolVersion, store, handles, _message=None, _more=False):
        admit(_message, "handles", [h["container"]["id"] for h in handles or ()])
        yield from act(_more, handles, lambda h: self.plugin.remove(store, h))


def admit(message, parameter=None, ids=()):
    """Refuses another revision of the protocol, and what is missing, too much or doubled."""
    parameters = message["parameters"]
    if parameters["protocolVersion"] not in (VERSION, None):
        raise error("UnsupportedProtocolVersion", supported=[VERSION])
    for name, value in parameters.items():
        if value is None:
            raise varlink.InvalidParameter(name)
    if len(ids) > BATCH or len(set(ids)) < len(ids):
        raise varlink.InvalidParameter(parameter)


def error(name, **parameters):
    given = {k: v for k, v in parameters.items() if v is not None}
    return varlink.VarlinkError({"error": f"{INTERFACE}.{name}", "parameters": given})


def ask(question, *parameters):
    """Has the plugin answer as a whole, or not at all."""
    try:
        return question(*parameters)
    except Unavailable as e:
        raise error("EngineUnavailable", **e.parameters)
    except Exception as e:
        raise error("EngineUnavailable", reason=repr(e), advice="report this as a fault of the plugin")


def act(more, handles, work):
    """Works on all containers side by side, and to the end: also where the caller goes away meanwhile."""

    def one(handle):
        outcome = {"id": handle["container"]["id"]}
        try:
            if work(handle):
                outcome["storageRemoved"] = True
        except Problem as e:
            outcome |= {"problem": e.kind, "message": str(e)}
        except Exception as e:  # costs this container, and not the others
            outcome |= {"problem": "failed", "message": str(e) or repr(e)}
        return outcome

    with concurrent.futures.ThreadPoolExecutor(max(len(handles), 1)) as pool:
        pending = {pool.submit(one, h) for h in handles}
        outcomes = []
        while pending:
            done, pending = concurrent.futures.wait(pending, 3, concurrent.futures.FIRST_COMPLETED)
            outcomes += [f.result() for f in done]
            if more and pending:
                yield {"outcomes": outcomes, "_continues": True}  # without any: a sign of life
                outcomes = []
    yield {"outcomes": outcomes, "_continues": False}


class Handler(varlink.RequestHandler):
    def handle(self):
        """As the library's, which reads byte by byte, too slowly for a batch of containers."""
        pending = bytearray()
        while chunk := self.request.recv(1 << 16):
            *messages, pending = (pending + chunk).split(b"\0")
            if len(pending) > MESSAGE:
                return
            for message in messages:
                try:
                    for reply in self.server.service.handle(bytes(message), _server=self.server, _request=self.request):
                        self.request.sendall(reply + b"\0")
                except ConnectionError:
                    return  # the caller has gone
                except Exception as e:
                    print(f"a call makes no sense: {e!r}", file=sys.stderr)
                    return


class Server(varlink.ThreadingServer):
    request_queue_size = 128
    # At the end nobody waits for callers; the threads of a running Stop are no daemons, and waited for.
    daemon_threads = True

    def verify_request(self, request, client_address):
        """Only root and the plugin's own user are answered."""
        _, uid, _ = struct.unpack("3i", request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return uid in (0, os.geteuid())


def clear(path):
    """Removes a socket that nobody serves any more."""
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(path)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            os.unlink(path)


def interface_dir():
    """Where io.unmoor.Plugin.varlink is: beside this file, in Unmoor's tree, or where `make install` puts it."""
    here = pathlib.Path(__file__).resolve().parent
    for directory in (here, here.parents[1] / "varlink", "/usr/local/share/unmoor", "/usr/share/unmoor"):
        if os.path.exists(f"{directory}/{INTERFACE}.varlink"):
            return str(directory)
    sys.exit(f"{INTERFACE}.varlink is nowhere")


def serve(plugin, version=""):
    """Serves the plugin until SIGTERM, on a socket that is passed in (LISTEN_FDS), or --socket PATH."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--socket", metavar="PATH", default=f"/run/unmoor/plugins/{plugin.name}.sock")
    path = arguments.parse_args().socket
    service = varlink.Service(vendor=plugin.engine, product=plugin.name, version=version, interface_dir=interface_dir())
    service._set_interface(INTERFACE, Service(plugin))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if "LISTEN_FDS" not in os.environ:
        clear(path)
    os.umask(0o177)
    with Server(f"unix:{path}", Handler) as server:
        server.service = service
        server.serve_forever()
