"""Jobs in every state, written through the functions that the API and the workers use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from publisher.base_model.facts import BaseModelFacts
from publisher.corpus.facts import count
from publisher.corpus.source import CorpusSource
from publisher.families.describe import describe
from publisher.jobs import events, leases, service, transitions
from publisher.jobs.events import NewEvent
from publisher.jobs.leases import Lease
from publisher.jobs.transitions import Blame, Failure, PublishedFile, RetryPolicy
from publisher.recipe import Recipe
from publisher.store import keys
from publisher.store.database import Database
from publisher.store.models import BaseModel, Corpus, Variant
from publisher.store.states import EventKind
from tests.manifest import contents

GEOMETRY = describe(
    {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    }
)
FACTS = BaseModelFacts(
    repo_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
    path=None,
    geometry=GEOMETRY,
    parameters=GEOMETRY.parameters(),
    bytes=2 * GEOMETRY.parameters(),
    dtype="bfloat16",
    files={"config.json": 861, "model.safetensors": 2 * GEOMETRY.parameters() + 31_000, "tokenizer.json": 2_104_556},
)
RECIPE = Recipe.model_validate(
    {
        "pruning": {"ratio": 0.65, "calibration": {"corpus": "classics"}},
        "alignment": {"corpora": [{"name": "classics", "weight": 3}, {"name": "docs"}], "tokens": 131072},
        "evaluation": {"corpora": ["novel"]},
    }
)
OUT_OF_DISK = Failure(
    Blame.INFRASTRUCTURE, "align", "No space left on /data/stages: 12 MiB are free.", "Free space, then retry."
)


@dataclass(frozen=True)
class Account:
    """A tenant with one API key."""

    database: Database
    tenant_id: str
    key_id: str
    key: str
    name: str = ""

    @classmethod
    def create(cls, database: Database, name: str, key_name: str = "laptop") -> Account:
        key = keys.new_key()
        with database.write() as session:
            tenant = keys.add_tenant(session, name)
            return cls(database, tenant.id, keys.add_key(session, tenant.id, key_name, key).id, key, name)

    def base_model(self, repo_id: str = FACTS.repo_id) -> str:
        facts = FACTS.model_copy(update={"repo_id": repo_id})
        with self.database.write() as session:
            row = BaseModel(
                tenant_id=self.tenant_id,
                repo_id=repo_id,
                revision=facts.revision,
                facts=facts.model_dump(mode="json"),
            )
            session.add(row)
            session.flush()
            return row.id

    def corpus(self, name: str, path: Path, **source: Any) -> str:
        """Of files, counted."""
        made = CorpusSource(name=name, path=path, **source)
        with self.database.write() as session:
            row = Corpus(
                tenant_id=self.tenant_id,
                name=name,
                source=made.model_dump(mode="json"),
                facts=count(made).model_dump(),
            )
            session.add(row)
            session.flush()
            return row.id

    def variant(
        self, repo_id: str, base_model_id: str, recipe: Recipe = RECIPE, stored: Mapping[str, Any] | None = None
    ) -> Variant:
        """`stored`: columns that differ from what this version writes, as `recipe_version`."""
        with self.database.write() as session:
            row = Variant(
                tenant_id=self.tenant_id,
                base_model_id=base_model_id,
                recipe=recipe.model_dump(mode="json"),
                recipe_digest=recipe.digest,
                publish_repo_id=repo_id,
                publish_private=False,
                request_digest="0" * 64,
            )
            for name, value in (stored or {}).items():
                setattr(row, name, value)
            session.add(row)
        return row

    def job(
        self,
        repo_id: str = "org/small",
        base_model_id: str | None = None,
        recipe: Recipe = RECIPE,
        stored: Mapping[str, Any] | None = None,
    ) -> Work:
        variant = self.variant(repo_id, base_model_id or self.base_model(), recipe, stored)
        with self.database.write() as session:
            return Work(self.database, service.enqueue(session, variant).id, variant.id)


@dataclass
class Work:
    """A job, and what its worker does."""

    database: Database
    job_id: str
    variant_id: str
    lease: Lease | None = None
    #: as a worker keeps them beside its events
    told: dict[str, Any] = field(default_factory=dict)

    def start(self, worker: str = "gpu-1") -> Work:
        with self.database.write() as session:
            self.lease = leases.claim(session, self.job_id, worker, 600)
        assert self.lease is not None
        self.told = {}
        return self

    def report(self, *told: NewEvent, stage: str | None = None) -> Work:
        assert self.lease is not None
        for event in told:
            if event.kind is EventKind.STAGE:
                said = {name: value for name, value in event.data.items() if name != "stage"}
                self.told[event.data["stage"]] = said | {"at": event.at} if said["state"] == "started" else said
        with self.database.write() as session:
            leases.report(session, self.lease, told, stage, self.told)
        return self

    def stages(self, *finished: str, running: str | None = None) -> Work:
        told = [stage_event(stage, "finished", 12.3) for stage in finished]
        told += [stage_event(running, "started")] if running else []
        return self.report(*told, stage=running)

    def release(self) -> Work:
        assert self.lease is not None
        with self.database.write() as session:
            transitions.release(session, self.lease)
        return self

    def fail(self, failure: Failure, tries: int = 1) -> Work:
        assert self.lease is not None
        with self.database.write() as session:
            transitions.fail(session, self.lease, failure, RetryPolicy(tries, 60))
        return self

    def succeed(
        self,
        manifest: dict[str, Any],
        files: Sequence[PublishedFile] = (),
        *,
        endpoint: str = "https://hub.example",
        repo_id: str = "org/small",
        commit: str = "ab" * 20,
    ) -> Work:
        assert self.lease is not None
        publication = {"endpoint": endpoint, "repo_id": repo_id, "commit": commit, "url": f"{endpoint}/{repo_id}"}
        with self.database.write() as session:
            transitions.succeed(session, self.lease, publication, manifest, files)
        return self

    def cancel(self) -> Work:
        with self.database.write() as session:
            service.cancel(session, self.job_id)
        return self

    def retry(self) -> Work:
        with self.database.write() as session:
            service.retry(session, self.job_id)
        return self

    def stop(self) -> Work:
        assert self.lease is not None
        with self.database.write() as session:
            transitions.finish_cancel(session, self.lease)
        return self

    @property
    def last_seq(self) -> int:
        with self.database.read() as session:
            return len(events.read_after(session, self.job_id, 0, 100_000))


def stage_event(stage: str, state: str, seconds: float | None = None) -> NewEvent:
    data: dict[str, Any] = {"stage": stage, "state": state}
    return NewEvent(EventKind.STAGE, data if seconds is None else data | {"seconds": seconds})


def progress(stage: str, done: float, total: float, unit: str = "tokens") -> NewEvent:
    return NewEvent(EventKind.PROGRESS, {"stage": stage, "done": done, "total": total, "unit": unit})


def metric(name: str, step: int, value: float) -> NewEvent:
    return NewEvent(EventKind.METRIC, {"name": name, "step": step, "value": value})


def log(message: str) -> NewEvent:
    return NewEvent(EventKind.LOG, {"message": message})


def manifest(recovered: float = 64.0) -> dict[str, Any]:
    """A loram.json of a smaller SmolLM2, with a certificate."""
    return contents.content(
        parameters={"base": FACTS.parameters, "pruned": 84_015_360},
        bytes={"base": FACTS.bytes, "checkpoint": 85_301_888},
        evaluation=contents.evaluation(contents.certificate(recovered)),
    )
