"""API keys and the tenants they stand for. Of a key only its sha256 is kept."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from publisher.store.database import Database, clock
from publisher.store.models import ApiKey, Tenant

FIRST_TENANT = "default"
_PREFIX_LETTERS = 12


def new_key() -> str:
    """`loram_` and 256 random bits."""
    return f"loram_{secrets.token_urlsafe(32)}"


def add_tenant(session: Session, name: str) -> Tenant:
    tenant = Tenant(name=name)
    session.add(tenant)
    session.flush()
    return tenant


def add_key(session: Session, tenant_id: str, name: str, key: str, created_by: str | None = None) -> ApiKey:
    """Keep the digest of `key`; the caller shows the key itself, once. `created_by`: id of the key that asked."""
    row = ApiKey(
        tenant_id=tenant_id, name=name, prefix=key[:_PREFIX_LETTERS], digest=_digest(key), created_by=created_by
    )
    session.add(row)
    session.flush()
    return row


def tenant_of(session: Session, key: str) -> Tenant | None:
    """Whose key it is; None if nobody's, or if it was revoked."""
    return session.scalar(
        select(Tenant)
        .join(ApiKey, ApiKey.tenant_id == Tenant.id)
        .where(ApiKey.digest == _digest(key), ApiKey.revoked_at.is_(None))
    )


@dataclass(frozen=True)
class KeyHolder:
    """Whom a key that counts stands for."""

    key_id: str
    tenant_id: str
    tenant_name: str


def holder_of(session: Session, key: str) -> KeyHolder | None:
    """None if the key is nobody's, or was revoked."""
    # columns alone, asked with every request: rows as objects take twice as long
    statement = select(ApiKey.id, Tenant.id, Tenant.name).join(Tenant, ApiKey.tenant_id == Tenant.id)
    found = session.execute(statement.where(ApiKey.digest == _digest(key), ApiKey.revoked_at.is_(None))).first()
    return None if found is None else KeyHolder(*found)


def find_key(session: Session, key: str) -> ApiKey | None:
    """The row of this key; None if there is none or it was revoked."""
    return session.scalar(select(ApiKey).where(ApiKey.digest == _digest(key), ApiKey.revoked_at.is_(None)))


def active_key(session: Session, id: str) -> ApiKey | None:
    """The key with this id; None if there is none or it was revoked."""
    return session.scalar(select(ApiKey).where(ApiKey.id == id, ApiKey.revoked_at.is_(None)))


def active_keys(session: Session, tenant_id: str) -> int:
    statement = select(func.count()).where(ApiKey.tenant_id == tenant_id, ApiKey.revoked_at.is_(None))
    return session.scalar(statement) or 0


def may_revoke(session: Session, revoker_id: str, key: ApiKey) -> bool:
    """Whether the key with id `revoker_id`, of the same tenant, may end `key`: itself, those that it made or that these
    made, and, where the operator made it or none older works, any."""
    revoker = session.get_one(ApiKey, revoker_id)
    if revoker.created_by is None or revoker.id == _oldest_active(session, key.tenant_id):
        return True
    made: ApiKey | None = key
    while made is not None and made.id != revoker_id:
        made = session.get(ApiKey, made.created_by) if made.created_by else None
    return made is not None


def _oldest_active(session: Session, tenant_id: str) -> str | None:
    return session.scalar(select(func.min(ApiKey.id)).where(ApiKey.tenant_id == tenant_id, ApiKey.revoked_at.is_(None)))


def revoke(session: Session, key: ApiKey) -> None:
    key.revoked_at = clock(session)


def revoke_unless_last(session: Session, key: ApiKey) -> bool:
    """Whether it does not count any more; not done where no other key of the tenant does. Several at once wait for each
    other: two keys that revoke themselves would both find the other one."""
    session.execute(select(Tenant.id).where(Tenant.id == key.tenant_id).with_for_update(key_share=True))
    session.refresh(key)
    if key.revoked_at is None:
        if active_keys(session, key.tenant_id) == 1:
            return False
        revoke(session, key)
    return True


def not_revoked(session: Session, ids: Collection[str]) -> set[str]:
    """Those of these keys that still count."""
    return set(session.scalars(select(ApiKey.id).where(ApiKey.id.in_(ids), ApiKey.revoked_at.is_(None))))


def ensure_first_key(
    database: Database, chosen: str | None = None, keep: Callable[[str], None] = lambda key: None
) -> str | None:
    """Make the tenant "default" with a key if there is no tenant yet; the key, which `keep` got before it counts, or
    None.

    A `chosen` key (a setting, for containers and scripts) is added to that tenant instead, if it is not known.
    """
    try:
        with database.write() as session:
            if chosen is None:
                return _add_first(session, keep)
            _add_chosen(session, chosen)
    except IntegrityError:
        pass  # another process that started at the same time was faster
    return None


def _add_first(session: Session, keep: Callable[[str], None]) -> str | None:
    if session.scalar(select(Tenant.id).limit(1)) is not None:
        return None
    key = new_key()
    add_key(session, add_tenant(session, FIRST_TENANT).id, "first key", key)
    keep(key)  # before the commit: a key that nobody could read would be the only one
    return key


def _add_chosen(session: Session, key: str) -> None:
    known = session.scalar(select(ApiKey).where(ApiKey.digest == _digest(key)))
    if known is not None:
        known.created_by = None  # whoever made it, it is the operator's now
        return
    tenant = session.scalar(select(Tenant).where(Tenant.name == FIRST_TENANT)) or add_tenant(session, FIRST_TENANT)
    add_key(session, tenant.id, "bootstrap", key)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
