"""The page of a run over HTTP, for this computer alone."""

from __future__ import annotations

import secrets
import socket
from getpass import getuser
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryospin.report.page import PAGE

_LOOPBACK = "127.0.0.1"
_WAITING = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">'
    "<title>cryospin</title></head><body><p>No report yet: the run writes its first page when it has something to show."
    "</p></body></html>"
)


class PageServer(ThreadingHTTPServer):
    """Serves one file, on the loopback address, at a path that nobody can guess.

    Whoever else is logged in to this computer reaches its loopback address too, so the address holds a secret.

    run: the run's folder
    port: 0 for any that is free
    """

    daemon_threads = True

    def __init__(self, run: Path, port: int = 0) -> None:
        self.page = run / PAGE
        self.path = f"/{secrets.token_urlsafe(12)}/"
        super().__init__((_LOOPBACK, port), _Handler)

    @property
    def address(self) -> str:
        """What to open on this computer, or on another one that tunnels to it."""
        return f"http://{_LOOPBACK}:{self.server_port}{self.path}"

    @property
    def tunnel(self) -> str:
        """The command that makes the address work on another computer."""
        return f"ssh -N -L {self.server_port}:{_LOOPBACK}:{self.server_port} {_user()}@{socket.gethostname()}"


def _user() -> str:
    """Who runs this; in a container that may be nobody with a name."""
    try:
        return getuser()
    except (KeyError, OSError):
        return "USER"


class _Handler(BaseHTTPRequestHandler):
    """Answers with the page as it is now, and with nothing else."""

    server: PageServer

    def do_GET(self) -> None:
        """The page, or a page to wait with."""
        if not secrets.compare_digest(self.path.encode(), self.server.path.encode()) or not self._is_for_us():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            body = self.server.page.read_bytes()
        except FileNotFoundError:
            body = _WAITING.encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def _is_for_us(self) -> bool:
        """Whether the browser thinks of this computer, not of a site that pretends to be at its address."""
        return self.headers.get("Host", "").rsplit(":", 1)[0] in (_LOOPBACK, "localhost")

    def log_message(self, format: str, *args: object) -> None:
        """The terminal shows the address and nothing else."""
