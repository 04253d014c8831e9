"""The OpenAPI document says what is sent: one place completes what FastAPI knows of each operation.

Every endpoint states the refusals that are its own (`documented`); what follows from its kind is added here: a key, a
body, parameters, a write. Errors are problem details throughout, 422 too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute

from publisher.api.authentication import CurrentCaller
from publisher.api.errors import Problem, documented
from publisher.errors import RequestFault, listed

Document = dict[str, Any]

_METHODS = frozenset({"get", "put", "post", "delete", "patch", "head"})
_WRITING = frozenset({"put", "post", "delete", "patch"})
#: what FastAPI says that a 422 is
_NOT_SENT = ("HTTPValidationError", "ValidationError")
_REFERENCE = "#/components/schemas/{model}"


def operation_id(route: APIRoute) -> str:
    """A plain word that stays when paths are rearranged: generated clients call their methods so."""
    return route.name


def complete_document(app: FastAPI) -> None:
    """Have `app.openapi()` say what is sent."""
    generate = app.openapi

    def openapi() -> Document:
        if app.openapi_schema is None:
            document = generate()
            for path, method, operation in _operations(document["paths"]):
                _complete(path, method, operation)
            for _, _, message in _operations(document.get("webhooks", {})):
                message["responses"].pop("422", None)  # receivers say what they like
            _replace_schemas(document["components"]["schemas"])
            _describe_references(document["components"]["schemas"])
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _operations(paths: Document) -> Iterator[tuple[str, str, Document]]:
    for path, operations in paths.items():
        for method, operation in operations.items():
            if method in _METHODS:
                yield path, method, operation


def _complete(path: str, method: str, operation: Document) -> None:
    responses = operation["responses"]
    if not path.startswith("/v1/"):
        return
    # 403 for a scope that is missing or a suspended tenant, 422 for unknown parameters, 429 for too many requests, 503
    # while the database is away
    statuses = {401, 403, 422, 429, 503}
    if "requestBody" in operation:
        statuses |= {400, 413}
    if "{" in path:
        statuses.add(404)
    if method in _WRITING:
        statuses.add(507)
    responses.pop("422", None)
    added = {str(status): said for status, said in documented(*statuses).items()}
    operation["responses"] = dict(sorted((added | responses).items()))
    for parameter in operation.get("parameters", []):
        parameter.setdefault("description", _of_path(parameter["name"], operation["tags"][0]))


def _of_path(name: str, tag: str) -> str:
    return f"which of the {tag}" if name == "id" else f"{name} of the file" if name == "path" else name


def _replace_schemas(schemas: Document) -> None:
    for name in _NOT_SENT:
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template=_REFERENCE)
    schemas |= problem.pop("$defs", {}) | {"Problem": problem}


def _describe_references(schemas: Document) -> None:
    """A property that is an object or a kind of its own is described as that is, where it says nothing itself."""
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():
            references = [each["$ref"] for each in [field, *field.get("anyOf", [])] if "$ref" in each]
            if "description" not in field and len(references) == 1:
                said = schemas[references[0].rpartition("/")[-1]].get("description")
                field.update({"description": said} if said else {})


async def refuse_unknown_parameters(request: Request, caller: CurrentCaller) -> None:
    """RequestFault for query parameters that the document does not name: who filters by one that there is not, or by a
    misspelt one, would take everything for the answer. After the key, which is asked for first."""
    route = request.scope["route"]
    operations = request.app.openapi()["paths"].get(route.path_format, {})
    operation = operations.get(request.method.lower())
    if operation is None:
        return
    known = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    if unknown:
        there_are = f"There are {listed(known)}." if known else "It takes none."
        raise RequestFault(
            f"{request.method} {route.path_format} has no query parameter {listed(map(repr, unknown))}.",
            field=unknown[0],
            way_out=there_are,
        )
