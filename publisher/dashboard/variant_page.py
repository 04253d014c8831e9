"""A variant as its page shows it: what it is worth first, then how to use it, then how it was made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

from publisher.api.service import Service
from publisher.base_model.files import is_legal
from publisher.dashboard.dot_plot import DotPlot, Gains, draw_dot_plot
from publisher.dashboard.kept_view import KeptView, kept_view
from publisher.dashboard.published_files import BILL, licences
from publisher.dashboard.recipe_view import Group, in_groups
from publisher.dashboard.usage import SIGNATURE, Command, commands, download_command
from publisher.dashboard.variant_numbers import VariantNumbers
from publisher.manifest.manifest import Manifest
from publisher.manifest.reports import Publication
from publisher.manifest.slsa_provenance import FILE_NAME as PROVENANCE
from publisher.recipe import Recipe
from publisher.settings import Settings
from publisher.store.models import Job, Variant
from publisher.store.variant_content import Unreadable, manifest_of, recipe_of


@dataclass(frozen=True)
class VariantPage:
    """Of a row whose session is open."""

    row: Variant
    service: Service

    @cached_property
    def numbers(self) -> VariantNumbers | None:
        return VariantNumbers.of(self.row)

    @cached_property
    def publication(self) -> Publication | None:
        return Publication.model_validate(self.row.publication) if self.row.publication else None

    @cached_property
    def manifest(self) -> Manifest | None:
        return self._manifest if isinstance(self._manifest, Manifest) else None

    @cached_property
    def _manifest(self) -> Manifest | Unreadable | None:
        return manifest_of(self.row)

    @cached_property
    def _recipe(self) -> Recipe | Unreadable:
        return recipe_of(self.row)

    @property
    def job(self) -> Job | None:
        """The latest."""
        return self.row.jobs[-1] if self.row.jobs else None

    @property
    def problems(self) -> list[str]:
        """Why something of it cannot be shown."""
        return [part.reason for part in (self._recipe, self._manifest) if isinstance(part, Unreadable)]

    @property
    def publication_url(self) -> str | None:
        return publication_page(self.publication, self.service.settings) if self.publication else None

    @property
    def download(self) -> str | None:
        return download_command(self.publication) if self.publication else None

    @property
    def commands(self) -> list[Command]:
        if self.publication is None:
            return []
        return commands(self.publication, self.manifest, self.paths, private=self.row.publish_private)

    @cached_property
    def paths(self) -> list[str]:
        return [file.path for file in self.row.files]

    @property
    def records(self) -> list[str]:
        """Files that say how it was made, of those that were published."""
        return [name for name in (PROVENANCE, BILL) if name in self.paths]

    @property
    def is_signed(self) -> bool:
        return SIGNATURE in self.paths

    @cached_property
    def licences(self) -> list[str]:
        return licences(self.service, self.publication) if self.publication and BILL in self.paths else []

    @property
    def legal_texts(self) -> list[str]:
        return [path for path in self.paths if is_legal(path)]

    @cached_property
    def kept(self) -> KeptView | None:
        return kept_view(self.service, self.manifest, self.publication) if self.manifest else None

    @cached_property
    def gains(self) -> DotPlot | None:
        """Of the certificate, on each corpus."""
        certificate = self.numbers.certificate if self.numbers else None
        if certificate is None or self.numbers is None:
            return None
        return draw_dot_plot([gains for row in self.numbers.certificate_rows if (gains := Gains.of(*row))])

    @cached_property
    def recipe(self) -> list[Group]:
        return in_groups(self._recipe, self.manifest) if isinstance(self._recipe, Recipe) else []

    @property
    def recipe_json(self) -> str:
        return json.dumps(self.row.recipe, indent=2, ensure_ascii=False)


def publication_page(publication: Publication, settings: Settings) -> str | None:
    """Where a person can look at it; None for the embedded Hub, which serves files to programs and has no pages."""
    if settings.is_embedded_hub(publication.endpoint):
        return None
    # escaping does not stop a link to `javascript:`
    return publication.url if publication.url.startswith(("https://", "http://")) else None
