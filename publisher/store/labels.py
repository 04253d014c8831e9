"""Labels of base models, corpora and variants. What has them shows them from its own row; their table is to find by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import ColumnElement, delete, insert, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from publisher.errors import RequestFault
from publisher.store.audit import record
from publisher.store.models import BaseModel, Corpus, Label, Variant
from publisher.store.tenancy import hold

#: labels of one resource
MOST = 20

Labelled = BaseModel | Corpus | Variant
#: what the audit log calls them
_ACTED_ON: Mapping[type[Labelled], str] = {BaseModel: "base_model", Corpus: "corpus", Variant: "variant"}


def set_labels(session: Session, row: Labelled, labels: Mapping[str, str]) -> None:
    """Give a row these labels and no others."""
    if row.labels:
        forget_labels(session, row.id)
    row.labels = dict(labels)
    rows = [{"resource_id": row.id, "key": key, "value": value} for key, value in labels.items()]
    if rows:
        session.execute(insert(Label), rows)


def change_labels(session: Session, row: Labelled, changes: Mapping[str, str | None]) -> None:
    """Set some labels, take away those that are None, leave the others. RequestFault if there are too many then."""
    hold(session, row)
    merged = {key: value for key, value in {**row.labels, **changes}.items() if value is not None}
    if len(merged) > MOST:
        raise RequestFault(f"{row.id} would have {len(merged)} labels; {MOST} are allowed.", field="labels")
    if merged == row.labels:
        return
    set_labels(session, row, merged)
    record(session, f"{_ACTED_ON[type(row)]}.label", row.id, tenant_id=row.tenant_id, labels=dict(changes))


def forget_labels(session: Session, id: str) -> None:
    session.execute(delete(Label).where(Label.resource_id == id))


def has_labels(id: InstrumentedAttribute[str], labels: Iterable[tuple[str, str]]) -> list[ColumnElement[bool]]:
    """Conditions on rows with this id: they have each of the labels."""
    return [id.in_(select(Label.resource_id).where(Label.key == key, Label.value == value)) for key, value in labels]
