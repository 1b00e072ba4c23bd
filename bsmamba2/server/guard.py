"""Who may ask the server: only who knows the random token in the address, and no page of a different site."""

import ipaddress
import secrets
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_BYTES = 24
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
# The page uses no program, style or image from elsewhere, and cannot be embedded in a different page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass
class Keys:
    """What opens the page.

    Attributes:
        token: In the address of every request.
        ticket: In the address that the browser is started with, which other users of this machine could see; it works
            once. Empty once it was used.
    """

    token: str = field(default_factory=lambda: secrets.token_urlsafe(TOKEN_BYTES), repr=False)
    ticket: str = field(default_factory=lambda: secrets.token_urlsafe(TOKEN_BYTES), repr=False)


class Guard:
    """Refuses requests without the token, for a foreign host, or from a page of a different site.

    A page of a different site cannot read the token. If its name is made to lead to this machine (DNS rebinding), the
    name is in the header Host of its requests.

    Args:
        app: What answers the other requests, whose paths are behind the token.
        keys: The token and the ticket.
        hosts: Names by which the server may be asked for; None for this machine's, and any address that is a number.
    """

    def __init__(self, app: ASGIApp, keys: Keys, hosts: Collection[str] | None = LOOPBACK_NAMES) -> None:
        self._app, self._keys = app, keys
        self._hosts = hosts
        self._own_names = {*LOOPBACK_NAMES, socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or gives it on without the token in its path."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(each for each in added if each[0] not in present)]
            await send(message)

        parts: list[str] = [*scope["path"].split("/"), ""]
        first, rest = parts[1], parts[2:]
        refusal = self._refusal(Headers(scope=scope), scope.get("server"))
        if refusal is None and self._is_ticket(first, rest):
            self._keys.ticket = ""
            await RedirectResponse(f"/{self._keys.token}/", 303)(scope, receive, send_with_headers)
            return
        if refusal is None and not secrets.compare_digest(first.encode("utf-8", "replace"), self._keys.token.encode()):
            refusal = "the address has no valid token; use the whole address that bsmamba2 open has printed"
        if refusal is not None:
            await PlainTextResponse(f"{refusal}\n", 403)(scope, receive, send_with_headers)
            return
        path = "/" + "/".join(rest[:-1])
        await self._app({**scope, "path": path, "raw_path": path.encode()}, receive, send_with_headers)

    def _is_ticket(self, first: str, rest: list[str]) -> bool:
        ticket = self._keys.ticket.encode()
        given = rest[0].encode("utf-8", "replace") if first == "start" and rest else b""
        return bool(ticket) and secrets.compare_digest(given, ticket)

    def _refusal(self, headers: Headers, server: tuple[str, int | None] | None) -> str | None:
        """Returns why a request is refused, from its headers alone; None if it is not."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0], server[1] if server else None):
            return "this host name is not one of this page; use the address that bsmamba2 open has printed"
        if any(origin != f"http://{hosts[0]}" for origin in headers.getlist("origin")):
            return "requests from pages of other sites are refused"
        return None

    def _is_ours(self, host: str, port: int | None) -> bool:
        name, colon, given = host.rpartition(":")
        if not colon or name.endswith(":"):
            name, given = host, "80"
        name = name.removeprefix("[").removesuffix("]").lower()
        if given != str(port):
            return False
        if self._hosts is not None:
            return name in self._hosts
        if name in self._own_names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
