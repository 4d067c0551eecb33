"""Holds the files of docs/service against the program: systemd's unit, the image's description, reverse proxies."""

import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer

from realesr.cli.app import build_app
from realesr.cli.quantities import seconds_from
from realesr.server.guard import OWNER_COOKIE, TOKEN_COOKIE
from realesr.server.settings import DEFAULT_PORT, ServerSettings
from realesr.server.uploads import MOST_FORM_BYTES

from .test_app import png, upload
from .test_serving import NETWORK, Running, running

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "service"
PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
UNIT, DOCKERFILE, IGNORED, NGINX, CADDY = (
    (FOLDER / name).read_text(encoding="utf-8")
    for name in ("realesr.service", "Dockerfile", "Dockerfile.dockerignore", "nginx.conf", "Caddyfile")
)
NAME, TOKEN = "photos.example.org", "correct-horse-battery-staple"


def options_of_serve() -> set[str]:
    app: Any = typer.main.get_command(build_app())
    return {name for parameter in app.commands["serve"].params for name in parameter.opts}


def setting(name: str) -> str:
    """The value of a line of the unit."""
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT, flags=re.MULTILINE)
    return str(value)


def entry_point() -> list[str]:
    """The words of the image's command."""
    (words,) = re.findall(r'^ENTRYPOINT \["(.*)"\]$', DOCKERFILE, flags=re.MULTILINE)
    return str(words).split('", "')


def docker_run() -> list[str]:
    """The words of `docker run` in the page."""
    (line,) = (line for line in PAGE.replace("\\\n", "").splitlines() if line.startswith("docker run "))
    return shlex.split(line)


def test_every_file_is_named_on_the_page() -> None:
    named = set(re.findall(r"\]\(service/([^)]+)\)", PAGE))
    assert named == {path.name for path in FOLDER.iterdir()} - {"Dockerfile.dockerignore"}


def test_options_are_those_of_the_command() -> None:
    lines = {
        "unit": shlex.split(setting("ExecStart")),
        "image": entry_point(),
        "container": ["realesr", "serve", *docker_run()[docker_run().index("realesr", -3) + 1 :]],
        **{f"comment {number}": words.split() for number, words in enumerate(re.findall("`(.*?)`", NGINX + CADDY))},
    }
    for place, words in lines.items():
        assert (words[0].rpartition("/")[2], words[1]) == ("realesr", "serve"), place
        assert {word for word in words if word.startswith("--")} <= options_of_serve(), place


def test_running_jobs_get_their_time_before_anything_is_killed() -> None:
    words = shlex.split(setting("ExecStart"))
    grace_s = seconds_from(words[words.index("--grace") + 1], "--grace")
    assert setting("KillMode") == "mixed"
    assert int(setting("TimeoutStopSec")) > grace_s + 10
    stop_timeout_s = int(docker_run()[docker_run().index("--stop-timeout") + 1])
    assert stop_timeout_s > ServerSettings().grace_seconds + 10


def test_caches_and_ports_fit_together() -> None:
    cache = f"/var/cache/{setting('CacheDirectory')}"
    assert f"REALESR_CACHE={cache} " in setting("Environment")
    assert f"ENV REALESR_CACHE={cache}\n" in DOCKERFILE
    assert cache in re.findall(r"^VOLUME (.*)$", DOCKERFILE, flags=re.MULTILINE)[0].split()
    ports = re.findall(r"127\.0\.0\.1:(\d+)|EXPOSE (\d+)", UNIT + DOCKERFILE + NGINX + CADDY + PAGE)
    assert {int(one or other) for one, other in ports} == {DEFAULT_PORT}


def test_the_image_gets_all_that_the_package_is_built_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = project["tool"]["setuptools"]["package-dir"].values()
    files = {project["project"]["readme"], *project["project"]["license-files"]}
    taken = {line.removeprefix("!") for line in IGNORED.splitlines() if line.startswith("!")}
    assert taken == {*folders, *files, "pyproject.toml", "constraints.txt"}
    assert "serve" in project["project"]["optional-dependencies"]
    assert '"/source[serve]"' in DOCKERFILE


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze: apt install systemd")
def test_the_unit_is_understood_by_systemd(tmp_path: Path) -> None:
    unit = tmp_path / "realesr.service"
    unit.write_text(UNIT.replace("ExecStart=/opt/realesr/bin/realesr", f"ExecStart={shutil.which('true')}"))
    ran = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert [line for line in ran.stderr.splitlines() if unit.name in line] == []
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    assert subprocess.run(words, capture_output=True).returncode == 0  # an exposure of at most 2.0 of 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("server"), token=TOKEN, allowed_hosts=[NAME]) as server:
        yield server
        assert server.ended() == (0, "")


def test_the_health_check_tells_whether_the_server_answers(server: Running) -> None:
    (code,) = re.findall(r'HEALTHCHECK .*?"-c", \\\n *"(.*?)"\]', DOCKERFILE, flags=re.DOTALL)
    for port, is_healthy in ((server.port, True), (1, False)):
        ran = subprocess.run([sys.executable, "-c", code.replace(str(DEFAULT_PORT), str(port))], capture_output=True)
        assert (ran.returncode == 0) == is_healthy


def test_what_a_proxy_with_tls_hands_on_is_let_in(server: Running) -> None:
    forwarded = {"Host": NAME, "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    with server.client() as client:
        answer = client.get("/", params={"token": TOKEN}, headers=forwarded)
        assert len(answer.headers.get_list("set-cookie")) == 2
        assert all("Secure" in cookie for cookie in answer.headers.get_list("set-cookie"))
        of_page = {**forwarded, "Cookie": f"{TOKEN_COOKIE}={TOKEN}", "Sec-Fetch-Site": "same-origin"}
        client.cookies.clear()
        for origin, status in {
            f"https://{NAME}": 202,
            f"https://{NAME}:443": 202,
            f"https://{NAME}:8443": 403,
            "https://evil.example": 403,
            "null": 403,
        }.items():
            headers = {**of_page, "Origin": origin}
            assert client.post("/api/jobs", files=upload(), data=NETWORK, headers=headers).status_code == status, origin
        of_port = {**of_page, "Host": f"{NAME}:8443", "Origin": f"https://{NAME}:8443"}
        assert client.post("/api/jobs", files=upload(), data=NETWORK, headers=of_port).status_code == 202
        foreign = {**of_page, "Host": "evil.example", "X-Forwarded-Host": NAME, "Origin": f"https://{NAME}"}
        assert client.post("/api/jobs", files=upload(), data=NETWORK, headers=foreign).status_code == 403


def test_without_tls_cookies_are_sent_back_all_the_same(server: Running) -> None:
    with server.client() as client:
        answer = client.get("/", params={"token": TOKEN}, headers={"Host": NAME})
    assert not any("Secure" in cookie for cookie in answer.headers.get_list("set-cookie"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def nginx(folder: Path, server: Running) -> Iterator[httpx.Client]:
    """A client of nginx as nginx.conf sets it up, with a certificate of its own, in front of a server."""
    key, certificate, port = folder / "key.pem", folder / "certificate.pem", free_port()
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={NAME}"]
    subprocess.run([*words, "-keyout", key, "-out", certificate], capture_output=True, check=True)
    site = NGINX.replace("listen 443", f"listen 127.0.0.1:{port}").replace(f":{DEFAULT_PORT}", f":{server.port}")
    site = re.sub(r"ssl_certificate .*;", f"ssl_certificate {certificate};", site)
    site = re.sub(r"ssl_certificate_key .*;", f"ssl_certificate_key {key};", site)
    places = [f"{name}_temp_path {folder};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    top = f"daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}}"
    (folder / "nginx.conf").write_text(f"{top} http {{ access_log off; {' '.join(places)} {site} }}")
    with subprocess.Popen(["nginx", "-p", folder, "-e", folder / "errors", "-c", folder / "nginx.conf"]) as process:
        try:
            client = httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=False, trust_env=False, timeout=20)
            with client:
                client.headers["Host"] = NAME
                assert server.soon(lambda: answers(client))
                yield client
        finally:
            process.terminate()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.skipif(
    not shutil.which("nginx") or not shutil.which("openssl"), reason="needs nginx and openssl: apt install nginx"
)
def test_behind_nginx_photos_and_events_go_through(tmp_path: Path) -> None:
    with running(tmp_path / "server", token=TOKEN, allowed_hosts=[NAME]) as server, nginx(tmp_path, server) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        cookies = client.get("/").headers.get_list("set-cookie")
        assert [cookie.partition("=")[0] for cookie in cookies if "Secure" in cookie] == [OWNER_COOKIE]
        from_page = {"Origin": f"https://{NAME}"}
        job = client.post("/api/jobs", files=upload(content=png(900, 900)), data=NETWORK, headers=from_page)
        assert job.status_code == 202
        states = []
        with client.stream("GET", f"{job.headers['location']}/events") as events:
            for line in events.iter_lines():
                if line.startswith("data: "):
                    states.append((time.monotonic(), line))
        assert '"state": "done"' in states[-1][1]
        assert len(states) > 2 and states[-1][0] - states[0][0] > 0.2  # as they come, not all at the end
        assert client.post("/api/jobs", files=upload(), headers={"Origin": "https://evil.example"}).status_code == 403
        (most_mb,) = re.findall(r"client_max_body_size (\d+)m;", NGINX)
        assert int(most_mb) << 20 >= ServerSettings().most_upload_bytes + MOST_FORM_BYTES
        assert server.ended() == (0, "")
