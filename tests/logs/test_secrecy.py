"""No secret leaves by a log line, whatever it is wrapped in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.logs.secrecy import HIDDEN, Secrecy, secrets_of
from publisher.settings import Settings

KEY = "loram_" + "k3y" * 12


@pytest.mark.parametrize(
    "text",
    [
        f"refused {KEY} at the door",
        f"Authorization: Bearer {KEY}",
        "headers={'authorization': 'Basic c2VjcmV0OnNlY3JldA=='}",
        "Authorization: secret-of-its-own-kind",
        "Cookie: session=abcdefgh; other=ijklmnop",
        "postgresql://publisher:pa55word@db/publisher is away",
        "GET http://hub/file?signature=abcdefgh&x=1",
        "GET http://s3/file?X-Amz-Signature=abcdefgh",
        "token hf_abcdefghijklmnopqrst was refused",
    ],
)
def test_what_looks_like_a_secret_is_hidden_wherever_it_stands(text: str) -> None:
    shown = json.dumps(Secrecy()(None, "", {"event": text, "nested": {"list": [text]}, "error": ValueError(text)}))
    secrets = (KEY, "c2VjcmV0", "secret-of", "abcdefgh", "ijklmnop", "pa55word")
    assert not [secret for secret in secrets if secret in shown], shown
    assert shown.count(HIDDEN) >= 3


def test_fields_of_secret_names_are_hidden_whole() -> None:
    line = Secrecy()(
        None, "", {"event": "x", "hub_token": "short", "Authorization": "y", "tokens": 12, "api_key": b"z"}
    )
    assert line == {"event": "x", "hub_token": HIDDEN, "Authorization": HIDDEN, "tokens": 12, "api_key": HIDDEN}


def test_values_of_every_secret_setting_are_hidden_though_they_look_like_nothing(tmp_path: Path) -> None:
    planted = {"hub_token": "plain-words-a", "secret": "plain-words-b", "bootstrap_key": "plain-words-c"}
    settings = Settings(data_dir=tmp_path, **planted)  # type: ignore[arg-type]
    text = Secrecy(secrets_of(settings)).text(" ".join(["said", *planted.values()]))
    assert text == f"said {HIDDEN} {HIDDEN} {HIDDEN}"


def test_ordinary_lines_stay_as_they_are() -> None:
    lines = [
        "job_0192f3a1c2b4d5e6f7a8b9: worker celery@host-3f9a1c has been silent for 30 seconds or more.",
        "GET /v1/jobs/job_0192?cursor=abc → 200",
        "read http://127.0.0.1:8000/hub/api/models/org/name: 404",
        "stage align finished",
    ]
    assert [Secrecy().text(line) for line in lines] == lines
