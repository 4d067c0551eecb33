"""The description of the HTTP API as an OpenAPI document, version 3.1, as a dict that becomes JSON."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from realesr.options import MAX_SCALE
from realesr.target_size import MEGAPIXELS, MOST_SIDE_PX

from .forms import FILE_FIELD
from .jobs import MEDIA_TYPES
from .settings import ServerSettings

Schema = dict[str, Any]

REASONS = {
    "400": "The request makes no sense: a field is unknown or out of range.",
    "401": "The token is missing or wrong.",
    "403": "Host or Origin is foreign.",
    "404": "There is no such job, or it is somebody else's.",
    "408": "The upload is too slow.",
    "409": "The job is not done yet, or has failed.",
    "413": "The upload is too large.",
    "415": "The body is not multipart/form-data.",
    "422": "The image cannot be read, is too large, or does not fit into the format.",
    "500": "The engine or the server failed.",
    "503": "The queue is full, or the server is ending: Retry-After says when to try again. Or the network cannot be "
    "fetched.",
    "507": "The server's disk is full.",
}
"""HTTP status -> what it means."""

DETAILS = {
    "realesr": "Enlarges photos with Real-ESRGAN networks, on the machine that this server runs on.",
    "upscale": "Answers with the image once it is done; a client that leaves cancels its job. With the header "
    "`Prefer: respond-async` it answers at once, with a job.",
    "events": "Server-sent events: `event: job`, with the job as JSON in `data`; the last one has the final state. A "
    "comment every 15 s keeps the connection.",
    "tile": "A part of 512 px a side, fewer at the right and lower edges. The highest level is 100 % of the result, "
    "each level below it half of that. Tiles of the source are the input enlarged to the result's size.",
    "order": "Jobs run first come, first served, but one that is estimated to take less than ten seconds goes before "
    "longer ones that came less than a minute before it and have not started; `place` says when it is a job's turn: 1 "
    "is next.",
}


def document(settings: ServerSettings) -> Schema:
    """Return the document."""
    secured: Schema = {} if settings.token is None else {"security": [{"token": []}, {"cookie": []}]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "realesr",
            "version": version("realesr"),
            "description": DETAILS["realesr"],
            "license": {"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        },
        "servers": [{"url": "/"}],
        **secured,
        "paths": {**upscale_paths(settings), **job_paths(settings), **image_paths(), **server_paths()},
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "realesr_token"},
            },
        },
    }


def upscale_paths(settings: ServerSettings) -> Schema:
    """Return the path that answers with the image."""
    prefer = {
        "name": "Prefer",
        "in": "header",
        "description": "`respond-async` asks for a job (RFC 7240).",
        "schema": {"type": "string"},
    }
    operation = {
        "operationId": "upscale",
        "summary": "Enlarge an image",
        "description": DETAILS["upscale"],
        "parameters": [prefer],
        "requestBody": form(settings),
        "responses": {
            "200": result("The enlarged image."),
            "202": accepted(),
            **errors("400", "408", "413", "415", "422", "500", "503", "507"),
        },
    }
    return {"/v1/images/upscale": {"post": operation}}


def job_paths(settings: ServerSettings) -> Schema:
    """Return the paths of jobs."""
    submit = operation("submit", "Enlarge an image in the background", {"202": accepted()}, "400", "408", "413", "415")
    submit |= {"description": DETAILS["order"], "requestBody": form(settings)}
    submit["responses"] |= errors("422", "503", "507")
    listed = record({"jobs": {"type": "array", "items": reference("Job")}})
    jobs = json_answer("The jobs of this browser, the oldest first.", listed)
    one = {"200": json_answer("The job.", reference("Job"))}
    gone = {"200": json_answer("The job as it was, or is now.", reference("Job"))}
    stream = {"200": {"description": DETAILS["events"], "content": {"text/event-stream": {}}}}
    return {
        "/api/jobs": {"post": submit, "get": operation("listJobs", "List the jobs of this browser", {"200": jobs})},
        "/api/jobs/{id}": {
            "parameters": [job_id()],
            "get": operation("getJob", "Return a job", one, "404"),
            "delete": operation("deleteJob", "Cancel a job, or delete one that is over and its files", gone, "404"),
        },
        "/api/jobs/{id}/events": {
            "parameters": [job_id()],
            "get": operation("watchJob", "Watch a job", stream, "404"),
        },
    }


def image_paths() -> Schema:
    """Return the paths of images and parts of them."""
    pictures = {
        "result": ("downloadResult", "Download the result", result("The result.")),
        "thumbnail": ("thumbnail", "Show the input small, at most 320 px a side", jpeg()),
        "source": ("showSource", "Show the input, at most 2048 px a side", jpeg()),
        "preview": ("showPreview", "Show the result, at most 2048 px a side", jpeg()),
    }
    paths: Schema = {
        f"/api/jobs/{{id}}/{name}": {
            "parameters": [job_id()],
            "get": operation(identifier, summary, {"200": answer}, "404", "409", "422"),
        }
        for name, (identifier, summary, answer) in pictures.items()
    }
    tile = operation("showTile", "Show a part at a level of detail", {"200": jpeg()}, "400", "404", "409")
    side = path_parameter("side", {"enum": ["source", "result"]})
    numbers = [path_parameter(name, {"type": "integer", "minimum": 0}) for name in ("level", "x", "y")]
    paths["/api/jobs/{id}/tiles/{side}/{level}/{x}_{y}.jpg"] = {
        "parameters": [job_id(), side, *numbers],
        "get": tile | {"description": DETAILS["tile"]},
    }
    ids = {
        "name": "ids",
        "in": "query",
        "required": True,
        "description": "Ids of jobs that are done, separated by commas.",
        "schema": {"type": "string", "pattern": "[^,]"},
    }
    archive = operation("downloadArchive", "Download results as a ZIP file", {"200": content("application/zip")}, "400")
    archive["responses"] |= errors("404", "409")
    return paths | {"/api/archive": {"get": archive | {"parameters": [ids]}}}


def server_paths() -> Schema:
    """Return the paths that tell about the server."""
    up = {"200": content("application/json"), "503": content("application/json")}
    return {
        "/api/models": {
            "get": operation(
                "listModels", "List networks, formats and limits", {"200": json_answer("Them.", reference("Models"))}
            )
        },
        "/healthz": {"get": without_token(operation("health", "Say that the server is up", {"200": up["200"]}))},
        "/readyz": {"get": without_token(operation("ready", "Say whether it takes jobs", up))},
        "/metrics": {"get": operation("metrics", "Return counts for Prometheus", {"200": content("text/plain")})},
        "/openapi.json": {"get": operation("openapi", "Return this document", {"200": content("application/json")})},
    }


def form(settings: ServerSettings) -> Schema:
    """Return the body of an upload."""
    side: Schema = {"type": "integer", "minimum": 1, "maximum": MOST_SIDE_PX}
    megabytes = f"{settings.most_upload_bytes / 1e6:,.3g}"
    properties = {
        FILE_FIELD: {
            "type": "string",
            "format": "binary",
            "description": f"The file, at most {megabytes} MB and {settings.most_pixels / 1e6:,.4g} megapixels.",
        },
        "model": {"type": "string", "description": "A name that /api/models lists; by default the default network."},
        "scale": {"type": "number", "minimum": 1, "maximum": MAX_SCALE},
        **{f"{name}_side": side for name in ("long", "short")},
        "width": side,
        "height": side,
        "megapixels": {"type": "number", "minimum": MEGAPIXELS[0], "maximum": MEGAPIXELS[1]},
        "strength": {"type": "number", "minimum": 0, "maximum": 1, "default": 1},
        "format": {"type": "string", "enum": list(MEDIA_TYPES)},
        "quality": {"type": "integer", "minimum": 1, "maximum": 100},
    }
    schema = {"type": "object", "required": [FILE_FIELD], "properties": properties, "additionalProperties": False}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def schemas() -> Schema:
    """Return the schemas of what is answered."""
    text, number, count, seconds = (
        {"type": "string"},
        {"type": "number"},
        {"type": "integer", "minimum": 0},
        {"type": ["number", "null"], "minimum": 0},
    )
    job = {
        "id": text,
        "name": text,
        "state": {"enum": ["queued", "running", "done", "failed", "cancelled"]},
        "place": {"type": ["integer", "null"], "minimum": 1},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "pixels_done": count,
        "pixels_total": count,
        "seconds_left": seconds,
        "estimate_seconds": seconds,
        "created": {"type": "number", "description": "Seconds since 1970."},
        "error": optional(record({"message": text, "kind": text})),
        "notices": {"type": "array", "items": text},
        "options": {"type": "object"},
        "input": optional(record({"width": count, "height": count})),
        "output": optional(
            record(
                {each: count for each in ("width", "height", "bytes", "tile_px", "highest_level")} | {"format": text}
            )
        ),
        "model": {"type": ["string", "null"]},
        "seconds": seconds,
        "fetching": optional(record({"model": text, "done": count, "total": count})),
    }
    model = {"name": text, "scale": count, "purpose": text, "licence": {"type": ["string", "null"]}}
    model |= {"bytes": {"type": ["integer", "null"]}, "on_disk": {"type": "boolean"}, "is_default": {"type": "boolean"}}
    limits = record({"upload_bytes": count, "pixels": count, "scale": number})
    listing = {"models": {"type": "array", "items": record(model)}, "formats": {"type": "array", "items": text}}
    return {
        "Job": record(job),
        "Models": record(listing | {"limits": limits}),
        "Error": record({"error": record({"message": text, "kind": text})}),
    }


def operation(identifier: str, summary: str, answers: Mapping[str, Any], *statuses: str) -> Schema:
    """Return an operation with its answers, and with the errors of some statuses."""
    return {"operationId": identifier, "summary": summary, "responses": {**answers, **errors(*statuses)}}


def without_token(operation: Schema) -> Schema:
    """Return an operation that needs no token."""
    return operation | {"security": []}


def errors(*statuses: str) -> Schema:
    """Return answers that say no; those of the guard may come from every operation."""
    return {status: json_answer(REASONS[status], reference("Error")) for status in ("401", "403", *statuses)}


def accepted() -> Schema:
    """Return the answer of a job that waits."""
    location = {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}}
    return json_answer("The job; it waits for its turn.", reference("Job")) | {"headers": location}


def result(description: str) -> Schema:
    """Return the answer that is an enlarged image, with what is told of it."""
    model = {"description": "The network that did it.", "schema": {"type": "string"}}
    notices = {"description": "Lines about the result, where there are any.", "content": {"application/json": {}}}
    return {
        "description": description,
        "headers": {"Realesr-Model": model, "Realesr-Notices": notices},
        "content": {each: {} for each in MEDIA_TYPES.values()},
    }


def json_answer(description: str, schema: Schema) -> Schema:
    """Return an answer in JSON."""
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def content(media_type: str) -> Schema:
    """Return an answer of a media type."""
    return {"description": "The answer.", "content": {media_type: {}}}


def jpeg() -> Schema:
    """Return an answer that is a JPEG image."""
    return {"description": "A JPEG image.", "content": {"image/jpeg": {}}}


def job_id() -> Schema:
    """Return the parameter that names a job."""
    return path_parameter("id", {"type": "string"})


def path_parameter(name: str, schema: Schema) -> Schema:
    """Return a parameter that is a part of the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema}


def record(properties: Schema) -> Schema:
    """Return the schema of an object that has all of these properties."""
    return {"type": "object", "required": list(properties), "properties": properties}


def optional(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def reference(name: str) -> Schema:
    """Return a reference to one of the schemas."""
    return {"$ref": f"#/components/schemas/{name}"}
