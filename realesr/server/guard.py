"""Lets nobody in who should not be: checks Host, Origin and token of every request before anything else sees it.

What is guarded against: pages of other sites that send requests to a server on this machine (checked by Origin, and by
Fetch Metadata where a browser sends it), a foreign name that resolves to this machine's address (DNS rebinding, checked
by Host), and, where a token is set, everybody without it. Sources: RFC 9110, RFC 6265bis, W3C Fetch Metadata, CSP 3.
"""

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .refusals import Refusal
from .settings import ServerSettings

TOKEN_COOKIE = "realesr_token"
OWNER_COOKIE = "realesr_owner"
COOKIE_SECONDS = 30 * 24 * 3600

OPEN_PATHS = frozenset(("/healthz", "/readyz"))
"""Addresses that are answered without a token: they say nothing but whether the server is up."""

SAFE_METHODS = frozenset(("GET", "HEAD"))

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

DEFAULT_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""What every answer has that does not say otherwise."""

_OWNER = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?", re.ASCII)
_LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))


class Guard:
    """ASGI middleware: refuses a request, or hands it on with `scope["owner"]`; adds headers to every answer.

    The owner is the unguessable id of a browser, from a cookie; "" for a client that keeps no cookies.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._token = settings.token
        self._hosts = AllowedHosts(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; called by the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        cookies = cookies_of(headers)
        owner = cookies.get(OWNER_COOKIE, "")
        scope["owner"] = owner if _OWNER.fullmatch(owner) else ""
        new_owner = secrets.token_urlsafe(32) if is_page(scope) and not scope["owner"] else None
        app: ASGIApp
        try:
            app = self._entrance(scope, headers, cookies) or self._app
        except Refusal as refusal:
            app, new_owner = refusal_for(headers, refusal), None
        await app(scope, receive, with_headers(send, owner_cookie(new_owner, scope) if new_owner else None))

    def _entrance(self, scope: Scope, headers: Headers, cookies: Mapping[str, str]) -> Response | None:
        """Return the answer that gives a browser its cookie, or None for a request that is let in.

        Raises:
            Refusal: the request is not let in.
        """
        host = self._hosts.checked(headers.getlist("host"))
        if scope["method"] not in SAFE_METHODS:
            check_origin(headers, host)
        if self._token is None or scope["path"] in OPEN_PATHS:
            return None
        given = token_in_query(scope)
        if given is not None and scope["method"] in SAFE_METHODS:
            check_token(self._token, given)
            return entrance_page(scope, self._token)
        check_token(self._token, token_in_headers(headers) or cookies.get(TOKEN_COOKIE))
        return None


class AllowedHosts:
    """Names and addresses that the header Host may have."""

    def __init__(self, settings: ServerSettings) -> None:
        bound = settings.host.lower().strip("[]")
        self._names = {*_LOOPBACK_NAMES, *map(str.lower, settings.allowed_hosts)}
        self._names.add(f"[{bound}]" if ":" in bound else bound)
        self._any_address = not settings.is_local
        if self._any_address:
            own = socket.gethostname().lower()
            self._names |= {own, f"{own}.local"}

    def checked(self, values: list[str]) -> str:
        """Return the header's value in lower case, if it is one that may be.

        A server that is reached from other machines takes any address written in digits: DNS rebinding needs a name.

        Raises:
            Refusal: it is missing, given twice, malformed or foreign.
        """
        if len(values) != 1 or not (match := _HOST.fullmatch(values[0].lower())):
            raise Refusal(400, "got a request without a valid Host header, expected one", "BadHost")
        name = match[1]
        if name in self._names or (self._any_address and is_address(name)):
            return match[0]
        raise Refusal(
            403,
            f"got a request for the host {name}, which this server is not known as: allow it at the start",
            "BadHost",
        )


def is_address(name: str) -> bool:
    """Return whether the name in a Host header is an IP address."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def check_origin(headers: Headers, host: str) -> None:
    """Raise Refusal where a page of another origin sent a request that changes something.

    Browsers send Origin with every such request; a client that sends none is no browser.
    """
    site = headers.get("sec-fetch-site", "same-origin")
    origins = headers.getlist("origin")
    if site in ("same-origin", "none") and all(without_usual_port(origin) == bare_host(host) for origin in origins):
        return
    shown = ", ".join(origins) or f"a {site} page"
    raise Refusal(403, f"got a request from {shown}, expected one from this server's own page", "BadOrigin")


def without_usual_port(origin: str) -> str | None:
    """Return host and port of an origin, the port left out where it is the scheme's own; None for "null"."""
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return None
    return bare_host(parts.netloc) if parts.scheme in ("http", "https") and not parts.path else None


def bare_host(host: str) -> str:
    """Return host and port without the port 80 or 443, which browsers leave out."""
    return re.sub(r":(80|443)$", "", host)


def token_in_query(scope: Scope) -> str | None:
    """Return the token of a link such as /?token=..., or None."""
    return dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token")


def token_in_headers(headers: Headers) -> str | None:
    """Return the token of `Authorization: Bearer ...`, or None."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def check_token(expected: str, given: str | None) -> None:
    """Raise Refusal where the token is missing or wrong; the time taken tells nothing about it."""
    if given is None:
        message = "this server needs a token: open the link that it printed, or send Authorization: Bearer TOKEN"
    elif hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode()):
        return
    else:
        message = "the token is wrong: open the link that the server printed when it was last started"
    raise Refusal(401, message, "Unauthorized", {"WWW-Authenticate": 'Bearer realm="realesr"'})


def entrance_page(scope: Scope, token: str) -> Response:
    """Return the page that keeps the token as a cookie and goes on to the address without it.

    It is a page, not a redirection: after a click in another site's page browsers do not send a cookie of SameSite
    Strict along a redirection.
    """
    query = urlencode([pair for pair in parse_qsl(scope["query_string"].decode("latin-1")) if pair[0] != "token"])
    here = scope.get("raw_path", b"/").decode("latin-1").rpartition("/")[2]
    address = f"./{here}?{query}" if query else f"./{here}"  # relative: a reverse proxy may have cut the beginning off
    response = HTMLResponse("<!doctype html><title>realesr</title>", headers={"Refresh": f"0; url={address}"})
    response.headers["Cache-Control"] = "no-store"
    set_cookie(response, TOKEN_COOKIE, token, scope, is_strict=True)
    return response


def set_cookie(response: Response, name: str, value: str, scope: Scope, *, is_strict: bool) -> None:
    """Add a cookie that scripts cannot read."""
    response.set_cookie(
        name,
        value,
        max_age=COOKIE_SECONDS,
        httponly=True,
        secure=scope["scheme"] == "https",
        samesite="strict" if is_strict else "lax",
    )


def owner_cookie(owner: str, scope: Scope) -> str:
    """Return the header that makes a browser the owner of its jobs.

    SameSite is Lax: with Strict, a browser that follows a link to the page would look like a new one, and lose sight of
    its jobs.
    """
    carrier = Response()
    set_cookie(carrier, OWNER_COOKIE, owner, scope, is_strict=False)
    return carrier.headers["set-cookie"]


def is_page(scope: Scope) -> bool:
    """Return whether a request asks for the page itself."""
    return bool(scope["method"] == "GET" and scope["path"] == "/")


def cookies_of(headers: Headers) -> dict[str, str]:
    """Return the cookies of a request; those of other programs on this machine may have any form."""
    return cookie_parser("; ".join(headers.getlist("cookie")))


def refusal_for(headers: Headers, refusal: Refusal) -> Response:
    """Return a refusal as JSON, or as text for somebody who opened the address in a browser."""
    if "text/html" not in headers.get("accept", ""):
        return refusal.response()
    return PlainTextResponse(f"realesr: {refusal}\n", refusal.status, refusal.headers)


def with_headers(send: Send, cookie: str | None) -> Send:
    """Return a `send` that adds the headers of every answer that has none of its own, and a cookie."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in DEFAULT_HEADERS.items():
                headers.setdefault(name, value)
            if cookie:
                headers.append("Set-Cookie", cookie)
        await send(message)

    return send_with_headers
