"""Viser's server behind a check of each request's Host and Origin.

A page of any site may open a WebSocket to a port of this machine, and a site may give its own name
this machine's address (DNS rebinding). Either could read the scene. So a request has to name this
machine, and one that a browser sends for a page has to come from a page of this same server.
"""

from __future__ import annotations

import http
import inspect
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import viser
import websockets.asyncio.server
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

_LOCK = threading.Lock()
_EVERYWHERE = {"", "0.0.0.0", "::"}


def local_server(host: str = "127.0.0.1", port: int = 0, **options: Any) -> viser.ViserServer:
    """A viser server that answers requests for this machine and from its own pages only.

    Args:
        host: Address to listen on; "0.0.0.0" for every network that this machine is in.
        port: Port, or the next free one; 0 for any.
        options: Further options of viser.ViserServer.
    """
    with _checked_handshakes(host):
        return viser.ViserServer(host=host, port=port, **options)


def refusal(host: str, headers: Any) -> str:
    """Reason to refuse a request to a server that listens on `host`; empty if there is none.

    Args:
        host: Address that the server listens on.
        headers: The request's, with a `get`.
    """
    name = headers.get("Host")
    if name is None or not _names_this_machine(name, host):
        return f"Host: expected this machine's name or address, got {name!r}"
    origin = headers.get("Origin")
    # Programs send none; browsers always do.
    if origin is not None and urlsplit(origin).netloc.lower() != name.lower():
        return f"Origin: expected a page of {name}, got {origin!r}"
    return ""


def _names_this_machine(name: str, host: str) -> bool:
    """True if a Host header is an address, or a name that only this machine has."""
    try:
        hostname = urlsplit(f"//{name}").hostname or ""
        ipaddress.ip_address(hostname)
    except ValueError:
        known = {"localhost", host.lower()}
        if host in _EVERYWHERE:
            known.add(socket.gethostname().lower())
        return hostname in known - _EVERYWHERE
    return True


@contextmanager
def _checked_handshakes(host: str) -> Iterator[None]:
    """WebSocket servers that are started meanwhile check their requests.

    Viser offers no way to add a check, so the function that starts its server is wrapped for the
    time of its start.
    """
    serve = websockets.asyncio.server.serve

    def checked_serve(*args: Any, process_request: Any = None, **options: Any) -> Any:
        return serve(*args, process_request=_checked(host, process_request), **options)

    with _LOCK:
        websockets.asyncio.server.serve = checked_serve  # type: ignore[assignment,misc]
        try:
            yield
        finally:
            websockets.asyncio.server.serve = serve  # type: ignore[misc]


def _checked(host: str, process_request: Any) -> Callable[[ServerConnection, Request], Any]:
    """A request's own processing, after the check."""

    async def process(connection: ServerConnection, request: Request) -> Response | None:
        reason = refusal(host, request.headers)
        if reason:
            return connection.respond(http.HTTPStatus.FORBIDDEN, reason + "\n")
        answer = process_request(connection, request) if process_request else None
        if inspect.isawaitable(answer):
            answer = await answer
        return answer

    return process
