"""Who is let in: Host, Origin, token and cookies, before anything else sees a request."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from realesr.server.guard import OWNER_COOKIE, TOKEN_COOKIE, Guard
from realesr.server.settings import ServerSettings

TOKEN = "correct-horse-battery-staple"
HERE = "http://127.0.0.1:8765"
LET_IN = 200


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the owner that the guard has found."""
    answer = JSONResponse({"owner": scope["owner"], "path": Request(scope).url.path})
    await answer(scope, receive, send)


def asked(
    method: str = "GET",
    path: str = "/api/jobs",
    headers: Mapping[str, str] | None = None,
    *,
    base: str = HERE,
    **settings: Any,
) -> httpx.Response:
    """The answer to one request through a guard with these settings."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=Guard(echo, ServerSettings(**settings)))
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


def kind(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["kind"])


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "localhost", "[::1]:8765", "LOCALHOST:1234"])
def test_names_of_this_machine_are_let_in(host: str) -> None:
    assert asked(headers={"Host": host}).status_code == LET_IN


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.0.0.1:8765", "localhost.evil.example"]
)
def test_a_foreign_name_is_not_let_in_for_it_may_have_been_rebound(host: str) -> None:
    answer = asked(headers={"Host": host})
    assert answer.status_code == 403
    assert kind(answer) == "BadHost"


@pytest.mark.parametrize("host", ["", "a b", "localhost:x", "local\thost", "@localhost", "localhost/", "[::1", "a:1:2"])
def test_a_malformed_host_is_not_let_in(host: str) -> None:
    assert asked(headers={"Host": host}).status_code == 400


def test_a_request_with_two_hosts_is_not_let_in() -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=Guard(echo, ServerSettings()))
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.get(f"{HERE}/", headers=[("Host", "localhost"), ("Host", "evil.example")])

    assert asyncio.run(ask()).status_code == 400


def test_behind_a_proxy_its_name_is_let_in_and_no_other() -> None:
    assert asked(headers={"Host": "photos.example"}, allowed_hosts=("Photos.example",)).status_code == LET_IN
    assert asked(headers={"Host": "other.example"}, allowed_hosts=("Photos.example",)).status_code == 403


@pytest.mark.parametrize("host", ["192.168.1.7:8765", "[fe80::1]:8765", "localhost:8765"])
def test_a_server_for_other_machines_is_reached_by_any_address(host: str) -> None:
    assert asked(headers={"Host": host}, host="0.0.0.0").status_code == LET_IN


def test_a_server_for_other_machines_is_not_reached_by_a_foreign_name() -> None:
    assert asked(headers={"Host": "evil.example"}, host="0.0.0.0").status_code == 403


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://127.0.0.1:8765.evil.example"},
        {"Origin": "file://127.0.0.1:8765"},
        {"Origin": "http://127.0.0.1:8765/"},
        {"Origin": "http://[::1"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_origin_changes_nothing(method: str, headers: dict[str, str]) -> None:
    answer = asked(method, headers=headers)
    assert answer.status_code == 403
    assert kind(answer) == "BadOrigin"


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": HERE}, {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
)
def test_the_own_page_and_programs_may_change_things(headers: dict[str, str]) -> None:
    assert asked("POST", headers=headers).status_code == LET_IN


def test_behind_a_proxy_the_port_that_browsers_leave_out_does_not_matter() -> None:
    headers = {"Host": "photos.example:443", "Origin": "https://photos.example"}
    assert asked("POST", headers=headers, allowed_hosts=("photos.example",)).status_code == LET_IN


def test_no_answer_allows_other_origins_to_read_it() -> None:
    answer = asked(headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer täken"},
        {"Cookie": f"{TOKEN_COOKIE}=wrong"},
        {"Cookie": f"{OWNER_COOKIE}={TOKEN}"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/jobs", "/metrics", "/openapi.json", "/static/api.js", "/nothing"])
def test_without_the_token_nobody_is_let_in(path: str, headers: dict[str, str]) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    answer = asked(path=path, headers=encoded, token=TOKEN)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert TOKEN not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer  {TOKEN} "},
        {"Cookie": f"{TOKEN_COOKIE}={TOKEN}"},
        {"Cookie": f'other={{"a": 1}}; {TOKEN_COOKIE}={TOKEN}'},
    ],
)
def test_with_the_token_one_is_let_in(headers: dict[str, str]) -> None:
    assert asked(headers=headers, token=TOKEN).status_code == LET_IN


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(*pair: bytes) -> bool:
        compared.append((pair[0], pair[1]))
        return False

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert asked(headers={"Authorization": f"Bearer {TOKEN}"}, token=TOKEN).status_code == 401
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_whether_the_server_is_up_may_be_asked_without_a_token(path: str) -> None:
    assert asked(path=path, token=TOKEN).status_code == LET_IN


def test_the_link_gives_a_cookie_that_no_script_reads_and_no_other_site_sends() -> None:
    answer = asked(path=f"/?token={TOKEN}&a=b", token=TOKEN)
    assert answer.headers["refresh"] == "0; url=./?a=b"
    assert TOKEN not in answer.text
    cookie = next(each for each in answer.headers.get_list("set-cookie") if each.startswith(TOKEN_COOKIE))
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert "secure" not in cookie.lower()


def test_over_https_cookies_are_for_https_alone() -> None:
    answer = asked(path=f"/?token={TOKEN}", token=TOKEN, base="https://localhost")
    assert all("secure" in each.lower() for each in answer.headers.get_list("set-cookie"))


def test_the_link_does_not_lead_to_another_host() -> None:
    answer = asked(path=f"http://127.0.0.1:8765//evil.example/?token={TOKEN}", token=TOKEN)
    assert answer.headers["refresh"] == "0; url=./"


def test_a_link_with_a_wrong_token_gives_no_cookie() -> None:
    answer = asked(path="/?token=wrong", token=TOKEN)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_a_token_in_an_address_changes_nothing() -> None:
    assert asked("POST", path=f"/api/jobs?token={TOKEN}", token=TOKEN).status_code == 401


def test_somebody_without_a_token_reads_in_the_browser_what_to_do() -> None:
    answer = asked(path="/", headers={"Accept": "text/html,*/*"}, token=TOKEN)
    assert answer.headers["content-type"].startswith("text/plain")
    assert "open the link" in answer.text


@pytest.mark.parametrize("status", [LET_IN, 403])
def test_every_answer_has_the_headers_that_protect_the_page(status: int) -> None:
    answer = asked(headers={} if status == LET_IN else {"Host": "evil.example"})
    assert answer.status_code == status
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"


def test_a_browser_gets_an_id_that_cannot_be_guessed_with_the_page() -> None:
    first, second = asked(path="/"), asked(path="/")
    assert "httponly" in first.headers["set-cookie"].lower()
    assert first.cookies[OWNER_COOKIE] != second.cookies[OWNER_COOKIE]
    assert len(first.cookies[OWNER_COOKIE]) == 43  # 256 bits


def test_a_browser_keeps_its_id() -> None:
    owner = asked(path="/").cookies[OWNER_COOKIE]
    answer = asked(path="/", headers={"Cookie": f"{OWNER_COOKIE}={owner}"})
    assert answer.json()["owner"] == owner
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("forged", ["", "x", "../../etc", "a" * 42, "a" * 44, "ä" * 43])
def test_what_is_no_id_of_a_browser_is_none(forged: str) -> None:
    cookie = f"{OWNER_COOKIE}={forged}".encode()
    assert asked(headers={"Cookie": cookie}).json()["owner"] == ""  # type: ignore[dict-item]


def test_programs_get_no_cookie() -> None:
    assert "set-cookie" not in asked(path="/api/jobs").headers
