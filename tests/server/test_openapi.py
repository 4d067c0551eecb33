"""The OpenAPI document: valid, complete, and true to what is answered."""

import asyncio
import re
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

from realesr.server.app import routes
from realesr.server.forms import FILE_FIELD
from realesr.server.job_options import FIELDS
from realesr.server.openapi import document
from realesr.server.settings import ServerSettings

from .queues import Site, visited
from .test_app import ended, sent, upload


@pytest.mark.parametrize("token", [None, "correct-horse-battery-staple"])
def test_the_document_is_valid(token: str | None) -> None:
    described = document(ServerSettings(token=token))
    validate(described)
    assert ("security" in described) == (token is not None)
    assert token is None or token not in str(described)


def test_every_address_is_described_with_every_method() -> None:
    described = {
        (path, method.upper())
        for path, item in document(ServerSettings())["paths"].items()
        for method in item
        if method in ("get", "post", "delete")
    }
    served = {
        (re.sub(r":\w+", "", route.path), method)
        for route in routes()
        if isinstance(route, Route) and route.path != "/"
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described == served


def test_the_form_has_every_field_that_is_read() -> None:
    for path in ("/v1/images/upscale", "/api/jobs"):
        body = document(ServerSettings())["paths"][path]["post"]["requestBody"]
        assert set(body["content"]["multipart/form-data"]["schema"]["properties"]) == {FILE_FIELD, *FIELDS}


def test_the_server_answers_the_document_and_what_it_describes(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.browser() as client:
            described = (await client.get("/openapi.json")).json()
            validate(described)

            def check(name: str, record: object) -> None:
                schema = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
                jsonschema.Draft202012Validator(schema).validate(record)

            waiting = await sent(client, scale="2", format="png")
            check("Job", waiting)
            await asyncio.sleep(0.05)
            check("Job", (await client.get(f"/api/jobs/{waiting['id']}")).json())
            site.worker.gate.set()
            check("Job", (await ended(site, waiting)).to_json())
            site.worker.failure = {"failed": "broken", "kind": "ModelError"}
            check("Job", (await ended(site, await sent(client))).to_json())
            check("Models", (await client.get("/api/models")).json())
            check("Error", (await client.get("/nothing")).json())
            listed = (await client.get("/api/jobs")).json()
            answer = described["paths"]["/api/jobs"]["get"]["responses"]["200"]
            schema = answer["content"]["application/json"]["schema"] | {"components": described["components"]}
            jsonschema.Draft202012Validator(schema).validate(listed)

    visited(tmp_path, visit, is_open=False)


def test_answers_have_a_status_that_is_described(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        async with site.client() as client:
            described = (await client.get("/openapi.json")).json()["paths"]["/api/jobs"]["post"]["responses"]
            answers = [
                await client.post("/api/jobs", files=upload()),
                await client.post("/api/jobs", files=upload(content=b"")),
                await client.post("/api/jobs", files=upload(content=bytes(20_000))),
                await client.post("/api/jobs", json={}),
                await client.post("/api/jobs", files=upload(), data={"scale": "x"}),
                await client.post("/api/jobs", files=upload(), headers={"Origin": "https://evil.example"}),
            ]
            statuses = [answer.status_code for answer in answers]
            assert statuses == [202, 422, 413, 415, 400, 403]
            assert {str(status) for status in statuses} <= set(described)

    visited(tmp_path, visit, most_upload_bytes=10_000)
