"""What became of a commit that an earlier try sent, or was about to: the Hub is asked before anything else is done.

Any worker can do it: what was sent is written down in the job, and the manifest lies at the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from huggingface_hub import HfApi
from sqlalchemy.orm import Session

from publisher.errors import HubUnavailable
from publisher.jobs import transitions
from publisher.jobs.leases import Lease, job_of
from publisher.jobs.publishing import Intent
from publisher.jobs.transitions import PublishedFile
from publisher.manifest.manifest import FILE_NAME as MANIFEST
from publisher.manifest.manifest import Manifest
from publisher.manifest.reports import Publication
from publisher.recipe.stages import Stage, planned_stages
from publisher.settings import Settings
from publisher.store.database import clock
from publisher.store.models import Job
from publisher.store.states import JobState
from publisher.store.variant_content import Unreadable, recipe_of
from worker.jobs.reporter import JobReporter
from worker.jobs.target import target_at
from worker.request import PublishTarget
from worker.stages.publication import differing_bytes, fence, hub_api, refuse_otherwise, standing, talking_to
from worker.transfer.uploads import OnBytes, received


@dataclass(frozen=True)
class OpenIntent:
    """`patience`: seconds for which the commit, sent to a Hub that is not ours, may still arrive. `ends`: the job has
    nothing else to do. `earlier`: the stages before publishing, which are made."""

    intent: Intent
    target: PublishTarget
    patience: float
    ends: bool
    earlier: Sequence[Stage]


def open_intent(session: Session, settings: Settings, lease: Lease) -> OpenIntent | None:
    """None if no earlier try has left anything open."""
    job = job_of(session, lease)
    intent = Intent.of(job.publishing)
    if intent is None:
        return None
    found = target_at(session, job.variant, settings, lease, intent.endpoint)
    target = replace(found, endpoint=intent.endpoint, repo_id=intent.repo_id)
    now = clock(session)
    lost_at = now if intent.lost_at is None else intent.lost_at
    ends = intent.verdict is not None or job.state is JobState.CANCELLING
    return OpenIntent(intent, target, lost_at + settings.hub_settling_seconds - now, ends, _stages_before(job))


def _stages_before(job: Job) -> Sequence[Stage]:
    recipe = recipe_of(job.variant)
    return () if isinstance(recipe, Unreadable) else planned_stages(recipe, publishes=True)[:-1]


class Settlement:
    """Of an open intent, under a lease that is younger than it."""

    def __init__(self, opened: OpenIntent, lease: Lease, reporter: JobReporter) -> None:
        self._opened = opened
        self._intent = opened.intent
        self._lease = lease
        self._reporter = reporter
        self._context = reporter.context(Stage.PUBLISH)

    def settle(self) -> bool:
        """Whether the job is to go on, since nothing was published; otherwise it has ended here.

        Raises HubUnavailable, CredentialFault or PublishedOtherwise, after which the Hub is to be asked again.
        """
        repo_id, api = self._intent.repo_id, hub_api(self._opened.target)
        self._context.log(f"An earlier try was publishing to {repo_id}: asking the Hub what became of it.")
        with talking_to(self._opened.target):
            commit = self._commit(api)
            if commit is None:
                return self._unpublished()
            self._context.log(f"It was published as {commit}; reading it back.")
            self._published(api, commit)
            return False

    def _commit(self, api: HfApi) -> str | None:
        """The commit; None if it was not made, nor can be. Raises HubUnavailable while that is not known."""
        embedded, left = self._opened.target.embedded, self._opened.patience
        if embedded:
            fence(api, self._intent)
        found = standing(api, self._intent)
        if found.commit is not None or found.final or embedded or left <= 0:
            return found.commit
        raise HubUnavailable(
            f"the answer to a commit in {self._intent.repo_id} was lost, and it may still arrive at "
            f"{self._intent.endpoint}.",
            way_out="It is asked again by itself (PUBLISHER_HUB_SETTLING_SECONDS).",
            retry_after=left,
        )

    def _unpublished(self) -> bool:
        self._context.log("Nothing was published.")
        if not self._opened.ends:
            self._reporter.withdraw()
            return True
        self._reporter.finish(lambda session: transitions.end_unpublished(session, self._lease))
        return False

    def _published(self, api: HfApi, commit: str) -> None:
        self._reporter.on_stage(Stage.PUBLISH, "started", None)
        problems = differing_bytes(api, self._intent.repo_id, commit, self._intent.files, self._counting())
        refuse_otherwise(self._intent.repo_id, commit, problems)
        content = json.loads(b"".join(received(api, self._intent.repo_id, MANIFEST, commit)))
        manifest = Manifest.parse(content, f"{MANIFEST} of {self._intent.repo_id}").model_dump(mode="json")
        publication = _publication(self._intent, commit).model_dump(mode="json")
        files = [PublishedFile(path, facts.size, facts.sha256) for path, facts in self._intent.files.items()]
        for stage in self._opened.earlier:
            self._reporter.on_stage(stage, "reused", None)
        self._reporter.on_stage(Stage.PUBLISH, "finished", None)
        self._reporter.finish(lambda session: transitions.succeed(session, self._lease, publication, manifest, files))

    def _counting(self) -> OnBytes:
        total, done = sum(facts.size for facts in self._intent.files.values()), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self._context.progress(min(done, total), total, "bytes read back")

        return advance


def _publication(intent: Intent, commit: str) -> Publication:
    url = f"{intent.endpoint}/{intent.repo_id}"
    return Publication(endpoint=intent.endpoint, repo_id=intent.repo_id, commit=commit, url=url)
