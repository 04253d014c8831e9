"""All that lies sealed in the database: which columns, and how they come under the newest secret."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from publisher.signing.keyring import Keyring
from publisher.signing.sealing import Sealer, secret_id
from publisher.store.models import HubCredential, Webhook

WEBHOOK_SECRET = "webhook secret"  # noqa: S105


def hub_token(kind: str) -> str:
    """What a tenant's `write` or `read` token is sealed as."""
    return f"hub {kind} token"


@dataclass(frozen=True)
class SealedColumn:
    """`purpose`: of its Sealer; `owner`: the column that says whose it is."""

    table: type[HubCredential] | type[Webhook]
    name: str
    purpose: str
    owner: str


#: the register: what is not here is lost when a secret is taken away
SEALED = (
    SealedColumn(HubCredential, "write_token", hub_token("write"), "tenant_id"),
    SealedColumn(HubCredential, "read_token", hub_token("read"), "tenant_id"),
    SealedColumn(Webhook, "secret", WEBHOOK_SECRET, "id"),
    SealedColumn(Webhook, "previous_secret", WEBHOOK_SECRET, "id"),
)


@dataclass(frozen=True)
class Resealed:
    """`values` sealed anew; `others` were already. `lost`: tenants with one that none of the secrets opens."""

    values: int
    others: int
    lost: tuple[str, ...]


def reseal(session: Session, keyring: Keyring) -> Resealed:
    """Seal every value under the newest secret. What cannot be opened stays as it is."""
    values, others, lost = 0, 0, []
    for column, row, sealed in _values(session):
        sealer, owner = Sealer(keyring, column.purpose), str(getattr(row, column.owner))
        text = sealer.open(sealed, owner)
        if text is None:
            lost.append(row.tenant_id)
        elif sealer.is_newest(sealed):
            others += 1
        else:
            setattr(row, column.name, sealer.seal(text, owner))
            values += 1
    session.flush()
    return Resealed(values, others, tuple(dict.fromkeys(lost)))


def count_by_secret(session: Session) -> Counter[str]:
    """How many values are sealed under the secret of each id."""
    return Counter(secret_id(sealed) for _, _, sealed in _values(session))


def _values(session: Session) -> Iterator[tuple[SealedColumn, Any, str]]:
    for table in dict.fromkeys(column.table for column in SEALED):
        rows = session.scalars(select(table).order_by(table.tenant_id).with_for_update()).all()
        for column in (each for each in SEALED if each.table is table):
            for row in rows:
                sealed = getattr(row, column.name)
                if sealed is not None:
                    yield column, row, sealed
