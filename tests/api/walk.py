"""Every route of the API, the embedded Hub and the dashboard, called with somebody else's ids.

The routes come from the application itself: a new one is walked without anybody's doing, and one whose body is not in
`BODIES` says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi.routing import iter_route_contexts

from publisher.api.scopes import NEEDED
from publisher.dashboard.router import create_dashboard
from publisher.hub.router import create_hub
from publisher.hub.storage import HubStorage
from publisher.keys.scopes import Scope
from tests.store.rows import Owner

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_METHODS = ("get", "post", "put", "patch", "delete", "head")

#: (method, path) → what is sent, without an id of the victim but for `base_model_id`
BODIES: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("post", "/v1/base-models"): {"path": "/nowhere"},
    ("post", "/v1/corpora"): {"name": "walked", "path": "/nowhere"},
    ("patch", "/v1/base-models/{id}"): {"labels": {"walked": "yes"}},
    ("patch", "/v1/corpora/{id}"): {"labels": {"walked": "yes"}},
    ("patch", "/v1/variants/{id}"): {"labels": {"walked": "yes"}},
    ("post", "/v1/api-keys"): {"name": "walked"},
}
_RECIPE = {"pruning": {"criterion": "magnitude", "ratio": 0.5}, "alignment": None}


@dataclass(frozen=True)
class Call:
    method: str
    #: as the application declares it
    path: str
    #: with a value for each parameter
    address: str
    json: Mapping[str, Any] | None = None
    #: the scope that it needs; None where any key will do, or that is not by a table
    needs: Scope | None = None
    #: whether it names something of the victim's, so that nothing but a refusal is right
    names_the_victim: bool = True

    def is_open_to(self, held: Collection[Scope]) -> bool:
        return self.needs is None or self.needs in held

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.address}"


@dataclass(frozen=True)
class Answer:
    call: Call
    status: int
    text: str


def send(client: httpx.Client, call: Call) -> Answer:
    """Of a stream only the head is read: it does not end. A connection that breaks is a bug, too."""
    try:
        with client.stream(call.method.upper(), call.address, json=call.json) as response:
            streams = response.headers.get("content-type", "").startswith("text/event-stream")
            return Answer(call, response.status_code, "" if streams else response.read().decode("utf-8", "replace"))
    except httpx.TransportError as error:
        return Answer(call, 599, repr(error))


def leaks(answers: Sequence[Answer], words: Sequence[str]) -> list[str]:
    """What is wrong: who asks for the victim's gets 401, 403 or 404, anybody else an answer without the victim's
    `words`, and nobody a bug."""
    found = []
    for answer in answers:
        refused = answer.status in {401, 403, 404}
        if answer.status >= 500 or (answer.call.names_the_victim and not refused):
            found.append(f"{answer.call}: {answer.status} {answer.text[:200]}")
        # a refusal may repeat what was sent
        if not refused and (word := next((each for each in words if each in answer.text), None)):
            found.append(f"{answer.call}: {answer.status} shows {word}")
    return found


def api_calls(document: Mapping[str, Any], victim: Owner, *, every_id: bool = True) -> Iterator[Call]:
    """Each operation under /v1, with each of the victim's ids, or with one of them."""
    ids = [victim.job, victim.variant, victim.base_model, victim.corpus, victim.sweep, victim.key, victim.webhook]
    for path, operations in document["paths"].items():
        for method in (method for method in _METHODS if method in operations and path.startswith("/v1/")):
            needs = NEEDED[operations[method]["tags"][0], "GET" if method == "head" else method.upper()]
            if needs is None and "{" in path:
                needs = Scope.ADMIN  # what is somebody else's; without it a key revokes itself
            json = body_of(method, path, operations[method], victim)
            named = json is not None and "base_model_id" in json
            if "{" not in path:
                yield Call(method, path, path, json, needs, names_the_victim=named)
                continue
            for id in ids if every_id else ids[:1]:
                yield Call(
                    method, path, filled(path, {"id": id, "number": "1", "delivery": victim.delivery}), json, needs
                )


def body_of(method: str, path: str, operation: Mapping[str, Any], victim: Owner) -> Mapping[str, Any] | None:
    if "requestBody" not in operation:
        return None
    publish = {"repo_id": "walked/x", "private": False}
    order = {"base_model_id": victim.base_model, "recipe": _RECIPE, "publish": publish}
    bodies = BODIES | {
        ("post", "/v1/plans"): {"base_model_id": victim.base_model, "recipe": _RECIPE},
        ("post", "/v1/variants"): order,
        ("post", "/v1/webhooks"): {"url": "https://receiver.invalid/hook"},
        ("patch", "/v1/webhooks/{id}"): {"description": "walked"},
        # no token: refused before anybody is asked
        ("put", "/v1/hub-credentials"): {"endpoint": "https://hub.invalid", "write_token": ""},
        ("post", "/v1/sweeps"): order | {"vary": {"pruning.ratio": [0.5, 0.6]}, "publish": {"repo_id": "walked/x-{n}"}},
    }
    assert (method, path) in bodies, f"say in tests/api/walk.py what {method.upper()} {path} is sent"
    return bodies[method, path]


#: show nothing of a tenant, and need no key's scope: tests/dashboard/test_sign_in.py and test_oidc.py are about these
SIGNING_IN = {"/login", "/logout", "/signed-out", "/login/oidc", "/login/oidc/callback", "/tenants"}


def dashboard_calls(victim: Owner) -> Iterator[Call]:
    """Pages and forms, with each of the victim's ids."""
    for path, method in routes_of(create_dashboard()):
        if path in SIGNING_IN or path.startswith("/assets/"):
            continue
        for id in (victim.job, victim.variant, victim.base_model) if "{" in path else ("",):
            yield Call(method, path, filled(path, {"id": id}), names_the_victim="{" in path)


def hub_calls(storage: HubStorage, namespace: str, name: str) -> Iterator[Call]:
    """Everything that the Hub answers, for a repository of the victim's."""
    app = create_hub(storage, authenticate=lambda token: None, secret=b"x" * 32)
    for path, method in routes_of(app):
        named = "{namespace}" in path or path in {"/api/repos/create", "/api/repos/delete"}
        address = filled(path, {"namespace": namespace, "name": name, "revision": "main", "sha256": "0" * 64})
        query = "?size=1&expires=99999999999&signature=x" if path.startswith("/api/uploads") else ""
        # it answers all alike that there is no Xet here, and says nothing of the repository
        yield Call(
            method,
            path,
            f"/hub{address}{query}",
            _hub_body(path, namespace, name) if method in {"post", "put", "delete"} else None,
            names_the_victim=named and "xet" not in path,
        )


def _hub_body(path: str, namespace: str, name: str) -> Mapping[str, Any]:
    everything = {"name": name, "organization": namespace, "private": False, "content": "", "tag": "t"}
    return everything | {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 1}], "files": []}


def routes_of(application: Any) -> Iterator[tuple[str, str]]:
    for route in iter_route_contexts(application.routes):
        for method in sorted(route.methods or ()):
            yield str(route.path), method.lower()


def filled(path: str, values: Mapping[str, str]) -> str:
    return _PARAMETER.sub(lambda found: values.get(found[1], "x"), path)
