"""Every answer of a Hub becomes one fault: whose it is, what was asked, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from huggingface_hub import HfApi

from publisher.errors import (
    CredentialFault,
    HubUnavailable,
    InfrastructureFault,
    NotFound,
    PublisherError,
    RequestFault,
    UnsupportedModel,
)
from publisher.hub_client.faults import Asked, hub_faults
from tests.servers import free_port, serve
from tests.webhooks.certificates import certificate, server_context
from tests.webhooks.receiver import receiving

#: repository → status, X-Error-Code
ANSWERS = {
    "absent": (404, "RepoNotFound"),
    "gated": (403, "GatedRepo"),
    "old": (404, "RevisionNotFound"),
    "expired": (401, "Invalid"),
    "others": (403, "Forbidden"),
    "full": (413, "TooLarge"),
    "busy": (429, "TooMany"),
    "broken": (502, "BadGateway"),
}


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    app = FastAPI()

    @app.get("/api/models/org/{name}")
    @app.get("/api/models/org/{name}/revision/{revision}")
    def info(request: Request, name: str, revision: str = "main") -> JSONResponse:
        status, code = ANSWERS[name.removeprefix("quoting-")]
        if name.startswith("quoting-"):
            code = f"Bad {request.headers.get('authorization')}"
        return JSONResponse({"error": f"said {code}"}, status, headers={"X-Error-Code": code})

    with serve(app) as port:
        yield f"http://127.0.0.1:{port}"


def fault_of(asked: Asked) -> PublisherError:
    api = HfApi(endpoint=asked.endpoint, token="hf_secret")
    with pytest.raises(PublisherError) as caught, hub_faults(asked):
        api.model_info(asked.repo_id, revision=asked.revision)
    assert "hf_secret" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("absent", NotFound, "there is no repository org/absent on {hub}, or it is private."),
        ("gated", RequestFault, "repository org/gated on {hub} is gated and there is no access to it."),
        ("expired", CredentialFault, "the Hub refuses repository org/expired on {hub} with 401: said Invalid"),
        ("others", RequestFault, "the Hub refuses repository org/others on {hub} with 403: said Forbidden"),
        ("full", RequestFault, "the Hub refuses repository org/full on {hub} with 413: said TooLarge"),
        ("busy", HubUnavailable, "the Hub answered 429 for repository org/busy on {hub}: said TooMany"),
        ("broken", HubUnavailable, "the Hub answered 502 for repository org/broken on {hub}: said BadGateway"),
    ],
)
def test_answer_says_whose_fault_it_is(hub: str, name: str, kind: type[PublisherError], says: str) -> None:
    fault = fault_of(Asked(f"org/{name}", hub, "SOME_TOKEN"))
    assert type(fault) is kind
    assert fault.message == says.format(hub=hub)
    asks_for_a_token = name in ("absent", "gated", "expired", "others")
    assert ("SOME_TOKEN" in (fault.way_out or "")) is asks_for_a_token


@pytest.mark.parametrize("name", ["expired", "others", "full", "broken"])
def test_hub_that_quotes_the_token_is_not_quoted(hub: str, name: str) -> None:
    fault = fault_of(Asked(f"org/quoting-{name}", hub, "SOME_TOKEN"))
    assert "said Bad Bearer ***" in fault.message


def test_revision_that_is_not_there_is_named_and_is_the_field_that_is_wrong(hub: str) -> None:
    fault = fault_of(Asked("org/old", hub, "SOME_TOKEN", revision="v9", field="repo_id"))
    assert (fault.message, fault.field) == (f"repository org/old on {hub} has no revision 'v9'.", "revision")
    assert fault_of(Asked("org/old", hub, "SOME_TOKEN", revision="v9")).field is None


def test_faults_are_of_the_kind_and_field_that_the_asker_wants(hub: str) -> None:
    asked = {"kind": "dataset", "field": "dataset", "fault": UnsupportedModel, "missing": RequestFault}
    absent = fault_of(Asked("org/absent", hub, "SOME_TOKEN", **asked))
    assert (type(absent), absent.field) == (RequestFault, "dataset")
    assert absent.message.startswith("there is no dataset org/absent")
    gated = fault_of(Asked("org/gated", hub, "SOME_TOKEN", **asked))
    assert (type(gated), gated.field) == (UnsupportedModel, "dataset")


def test_name_that_no_repository_can_have_is_the_requests_fault(hub: str) -> None:
    fault = fault_of(Asked("org/a b", hub, "SOME_TOKEN", field="repo_id"))
    assert (type(fault), fault.field) == (NotFound, "repo_id")
    assert "'org/a b' is not a repository id" in fault.message


def test_silence_is_the_infrastructures_fault() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    fault = fault_of(Asked("org/any", nowhere, "SOME_TOKEN"))
    assert type(fault) is HubUnavailable
    assert fault.message.startswith(f"the Hub {nowhere} did not answer for org/any: ")


def test_a_certificate_that_nobody_vouches_for_is_told_with_the_way_to_do_so(tmp_path: Path) -> None:
    with receiving(tls=server_context(certificate(tmp_path, "localhost"), [])) as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        fault = fault_of(Asked("org/own", f"https://localhost:{port}", "PUBLISHER_HUB_TOKEN"))
    assert isinstance(fault, HubUnavailable)
    assert "SSL_CERT_FILE" in str(fault)


def test_answer_behind_another_error_counts_and_signatures_stay_out_of_messages(hub: str) -> None:
    """huggingface_hub says that a file is neither here nor there, and keeps what the Hub said as the cause."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    with pytest.raises(HfHubHTTPError) as caught:
        HfApi(endpoint=hub, token=False).model_info("org/absent")
    with pytest.raises(NotFound), hub_faults(Asked("org/absent", hub, "SOME_TOKEN")):
        raise LocalEntryNotFoundError("not here") from caught.value
    with pytest.raises(InfrastructureFault) as silent, hub_faults(Asked("org/absent", hub, "SOME_TOKEN")):
        raise LocalEntryNotFoundError("no answer from 'https://cdn/file?X-Signature=abc'")
    assert "X-Signature" not in str(silent.value)
    assert "https://cdn/file" in str(silent.value)
