"""A variant's published files: list, and content whole or by range."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request, status
from fastapi.responses import RedirectResponse, Response

from publisher.api.authentication import CurrentCaller
from publisher.api.errors import documented
from publisher.api.service import CurrentService, Service
from publisher.api.variants_schema import VariantFileAnswer, VariantFiles
from publisher.errors import NotFound
from publisher.hub.sending import send_file
from publisher.manifest.reports import Publication
from publisher.store.models import Variant, VariantFile
from publisher.store.resources import find_file
from publisher.store.tenancy import owned

router = APIRouter(prefix="/v1/variants", tags=["variants"])


@router.get("/{id}/files", name="list_variant_files", responses=documented(401, 404))
def list_files(id: str, service: CurrentService, caller: CurrentCaller) -> VariantFiles:
    """List the files of the published checkpoint; none before it is published."""
    with service.database.read() as session:
        rows = owned(session, Variant, caller.tenant_id, id).files
        return VariantFiles(items=[VariantFileAnswer.model_validate(row) for row in rows])


@router.head("/{id}/files/{path:path}", response_class=Response, include_in_schema=False)
@router.get(
    "/{id}/files/{path:path}",
    name="read_variant_file",
    response_class=Response,
    responses=documented(401, 404)
    | {
        206: {"description": "the range asked for"},
        416: {"description": "no such range"},
        307: {"description": "at another Hub"},
    },
)
def read_file(id: str, path: str, request: Request, service: CurrentService, caller: CurrentCaller) -> Response:
    """Read a file of the published checkpoint; `Range` gives a part. A Hub elsewhere is redirected to."""
    with service.database.read() as session:
        variant = owned(session, Variant, caller.tenant_id, id)
        file = find_file(session, variant.id, path)
    if file is None or variant.publication is None:
        why = f"has no file {path!r}" if variant.publication else "is not published yet"
        raise NotFound(f"variant {id} {why}.", way_out=f"GET /v1/variants/{id}/files lists its files.")
    publication = Publication.model_validate(variant.publication)
    return _stored(request, service, publication, file) or _redirect(publication, file)


def _stored(request: Request, service: Service, publication: Publication, file: VariantFile) -> Response | None:
    """From the embedded Hub's disk; None if it was published elsewhere. Raises Damaged."""
    if service.hub is None or not service.settings.is_embedded_hub(publication.endpoint):
        return None
    stored = service.hub.open_repository(publication.repo_id).resolve(publication.commit, file.path)
    headers = {"ETag": f'"{file.sha256}"', "X-Content-Type-Options": "nosniff"}
    return send_file(request, stored.content, headers, file.path.rpartition("/")[-1])


def _redirect(publication: Publication, file: VariantFile) -> Response:
    place = f"{publication.repo_id}/resolve/{publication.commit}/{quote(file.path)}"
    return RedirectResponse(
        f"{publication.endpoint.rstrip('/')}/{place}", status_code=status.HTTP_307_TEMPORARY_REDIRECT
    )
