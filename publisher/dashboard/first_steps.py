"""What to do where there is nothing yet: commands to paste, with this service's address and what it already knows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from publisher.store.namespaces import namespaces_of
from publisher.store.resources import corpus_names, newest_base_model, newest_corpus

_EXAMPLE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
_EXAMPLE_NAMESPACE = "my-org"


@dataclass(frozen=True)
class FirstSteps:
    """What is there already: the newest of each. `register`, `text` and `order` are shell commands."""

    base_model_id: str | None
    base_model_name: str | None
    corpus_id: str | None
    corpus_name: str | None
    register: str
    text: str
    order: str


def first_steps(session: Session, tenant_id: str, public_url: str) -> FirstSteps:
    """For the tenant's newest base model, if any."""
    model, corpus = newest_base_model(session, tenant_id), newest_corpus(session, tenant_id)
    return FirstSteps(
        base_model_id=model.id if model else None,
        base_model_name=model.repo_id if model else None,
        corpus_id=corpus.id if corpus else None,
        corpus_name=corpus.name if corpus else None,
        register=curl(f"{public_url}/v1/base-models", {"repo_id": _EXAMPLE_MODEL}),
        text=curl(f"{public_url}/v1/corpora", {"name": "my-text", "path": "/corpora/my-text.jsonl"}),
        order=order_command(session, tenant_id, public_url, model.id if model else "base_…"),
    )


def order_command(session: Session, tenant_id: str, public_url: str, base_model_id: str) -> str:
    """Asks for a variant: with Taylor importance on a corpus, or by magnitude, which needs no text; to be published
    where the tenant may."""
    corpus = next(iter(corpus_names(session, tenant_id, 1)), None)
    namespace = next(iter(namespaces_of(session, tenant_id)), _EXAMPLE_NAMESPACE)
    pruning: dict[str, Any] = {"ratio": 0.5, "criterion": "magnitude"}
    if corpus is not None:
        pruning = {"ratio": 0.5, "criterion": "taylor", "calibration": {"corpus": corpus}}
    body = {
        "base_model_id": base_model_id,
        "recipe": {"pruning": pruning},
        "publish": {"repo_id": f"{namespace}/small-model", "private": False},
    }
    return curl(f"{public_url}/v1/variants", body)


def curl(address: str, body: dict[str, Any]) -> str:
    """A POST as a command for a POSIX shell."""
    # inside single quotes a shell reads everything as it stands, except the quote itself
    text = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    return (
        f'curl {address} \\\n  -H "Authorization: Bearer $PUBLISHER_API_KEY" \\\n'
        f"  -H \"Content-Type: application/json\" \\\n  -d '{text}'"
    )
