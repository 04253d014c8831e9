"""API keys and the tenants they stand for. Of a key only a digest is kept: publisher.keys.digests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from publisher.errors import Conflict, NotFound
from publisher.keys.digests import UNKEYED, Digest, KeyDigests
from publisher.keys.scopes import Scope
from publisher.keys.text import new_key
from publisher.store import namespaces
from publisher.store.audit import record
from publisher.store.database import Database, added_first, clock, database_now
from publisher.store.models import ApiKey, Membership, Tenant
from publisher.store.tenancy import owned

FIRST_TENANT = "default"
_PREFIX_LETTERS = 12
#: seconds between two notes of one key's last use
USE_SECONDS = 60


def add_tenant(session: Session, name: str) -> Tenant:
    """With the Hub's namespace of its name, unless that is somebody's. Conflict if there is a tenant of this name."""
    tenant = Tenant(name=name)
    if not added_first(session, tenant):
        raise Conflict(f"there is already a tenant {name!r}.", way_out="Choose another name.")
    namespaces.grant_if_free(session, name, tenant.id)
    return tenant


def add_key(
    session: Session,
    tenant_id: str,
    name: str,
    key: str,
    created_by: str | None = None,
    *,
    digests: KeyDigests = UNKEYED,
    scopes: Iterable[Scope] | None = None,
    expires_at: float | None = None,
) -> ApiKey:
    """Keep a digest of `key`; the caller shows the key itself, once. `created_by`: id of the key or
    membership that asked.

    `scopes`: None for all. `expires_at`: seconds since 1970.
    """
    digest = digests.current(key)
    row = ApiKey(
        tenant_id=tenant_id,
        name=name,
        prefix=key[:_PREFIX_LETTERS],
        digest=digest.value,
        secret_id=digest.secret_id,
        created_by=created_by,
        scopes=None if scopes is None else [scope.value for scope in scopes],
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    record(session, "key.create", row.id, tenant_id=tenant_id, related=created_by, name=name)
    return row


def _works() -> list[ColumnElement[bool]]:
    """Of keys that are neither revoked nor over."""
    return [ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > database_now())]


def _is(key: str, digests: KeyDigests) -> ColumnElement[bool]:
    return ApiKey.digest.in_([digest.value for digest in digests.candidates(key)])


def key_and_tenant(session: Session, key: str, digests: KeyDigests = UNKEYED) -> tuple[ApiKey, Tenant] | None:
    """The row of this key and whose it is; None if it is nobody's, was revoked or is over."""
    statement = select(ApiKey, Tenant).join(Tenant, ApiKey.tenant_id == Tenant.id)
    found = session.execute(statement.where(_is(key, digests), *_works())).first()
    return None if found is None else (found[0], found[1])


def active_key_and_tenant(session: Session, id: str) -> tuple[ApiKey, Tenant] | None:
    """The key with this id and whose it is; None if there is none, or it was revoked or is over."""
    statement = select(ApiKey, Tenant).join(Tenant, ApiKey.tenant_id == Tenant.id)
    found = session.execute(statement.where(ApiKey.id == id, *_works())).first()
    return None if found is None else (found[0], found[1])


def active_keys(session: Session, tenant_id: str) -> int:
    """How many keys can make others, today and for good: of the scope admin, neither revoked nor with an end."""
    endless = [ApiKey.revoked_at.is_(None), ApiKey.expires_at.is_(None)]
    keys = session.scalars(select(ApiKey).where(ApiKey.tenant_id == tenant_id, *endless))
    return sum(Scope.ADMIN in key.rights for key in keys)


def end_of(session: Session, tenant_id: str, id: str) -> float | None:
    """When the key ends that somebody of this tenant acts by; None: not by itself, nor does a person's membership.
    Raises NotFound."""
    if _membership(session, tenant_id, id) is not None:
        return None
    return owned(session, ApiKey, tenant_id, id).expires_at


def _membership(session: Session, tenant_id: str, id: str) -> Membership | None:
    found = session.get(Membership, id)
    return found if found is not None and found.tenant_id == tenant_id else None


def may_revoke(session: Session, revoker_id: str, key: ApiKey) -> bool:
    """Whether the key with id `revoker_id`, of the same tenant, may end `key`: itself, those that it made or that these
    made, and, where the operator made it or none older works, any. So may a person by their membership: which role it
    takes is asked elsewhere."""
    if _membership(session, key.tenant_id, revoker_id) is not None:
        return True
    revoker = session.get_one(ApiKey, revoker_id)
    if revoker.created_by is None or revoker.id == _oldest_active(session, key.tenant_id):
        return True
    made: ApiKey | None = key
    while made is not None and made.id != revoker_id:
        made = session.get(ApiKey, made.created_by) if made.created_by else None
    return made is not None


def _oldest_active(session: Session, tenant_id: str) -> str | None:
    return session.scalar(select(func.min(ApiKey.id)).where(ApiKey.tenant_id == tenant_id, *_works()))


def made_by(session: Session, tenant_id: str, makers: Collection[str]) -> list[ApiKey]:
    """Keys that work and that one of `makers`, ids of keys or memberships, made, or that a key made by them did; oldest
    first."""
    found, last = set[str](), set(makers)
    while last:
        made = select(ApiKey.id).where(ApiKey.tenant_id == tenant_id, ApiKey.created_by.in_(last))
        last = set(session.scalars(made)) - found
        found |= last
    return list(session.scalars(select(ApiKey).where(ApiKey.id.in_(found), *_works()).order_by(ApiKey.id)))


def hand_over(session: Session, before: str, after: str) -> None:
    """What one membership made counts as made by the one that takes its place."""
    session.execute(update(ApiKey).where(ApiKey.created_by == before).values(created_by=after))


def revoke(session: Session, key: ApiKey) -> None:
    """Twice changes nothing. Others at once wait."""
    session.refresh(key, with_for_update=True)
    if key.revoked_at is not None:
        return
    key.revoked_at = clock(session)
    record(session, "key.revoke", key.id, tenant_id=key.tenant_id, name=key.name)


def revoke_unless_last(session: Session, key: ApiKey) -> bool:
    """Whether it does not count any more; not done where it is the only one of the tenant that can make others. Several
    at once wait for each other: two keys that revoke themselves would both find the other one."""
    session.execute(select(Tenant.id).where(Tenant.id == key.tenant_id).with_for_update(key_share=True))
    session.refresh(key)
    if key.revoked_at is None:
        makes_others = Scope.ADMIN in key.rights and key.expires_at is None
        if makes_others and active_keys(session, key.tenant_id) == 1:
            return False
        revoke(session, key)
    return True


def count_by_secret(session: Session) -> Counter[str]:
    """How many keys that work are known under the secret of each id; under none: those of before there were digests
    with one."""
    rows = session.execute(select(ApiKey.secret_id, func.count()).where(*_works()).group_by(ApiKey.secret_id))
    return Counter({id or "": number for id, number in rows})


def open_to(session: Session, ids: Collection[str]) -> set[str]:
    """Those of these keys that still open something: they work, and their tenant is not suspended."""
    found = select(ApiKey.id).join(Tenant, ApiKey.tenant_id == Tenant.id)
    return set(session.scalars(found.where(ApiKey.id.in_(ids), *_works(), Tenant.suspended_at.is_(None))))


def keys_of(session: Session, tenant_id: str | None = None) -> list[tuple[ApiKey, Tenant]]:
    """All keys with their tenants, or one tenant's, oldest first."""
    statement = select(ApiKey, Tenant).join(Tenant, ApiKey.tenant_id == Tenant.id).order_by(ApiKey.id)
    if tenant_id is not None:
        statement = statement.where(ApiKey.tenant_id == tenant_id)
    return [(key, tenant) for key, tenant in session.execute(statement)]


def any_key(session: Session, id: str) -> ApiKey:
    """The key with this id, whoever's it is: for the operator alone. Raises NotFound."""
    key = session.get(ApiKey, id)
    if key is None:
        raise NotFound(f"there is no key {id}.", way_out="publisher admin key list names them all.")
    return key


def note_use(session: Session, ids: Collection[str]) -> None:
    """These keys are in use. Several processes note the same ones: whoever finds a note of this minute leaves it."""
    long_ago = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < database_now() - USE_SECONDS)
    session.execute(update(ApiKey).where(ApiKey.id.in_(ids), long_ago).values(last_used_at=database_now()))


def keep_anew(session: Session, digests: Mapping[str, Digest]) -> None:
    """Of these keys, by their ids, other digests are kept from now on."""
    for id, digest in digests.items():
        changed = update(ApiKey).where(ApiKey.id == id)
        session.execute(changed.values(digest=digest.value, secret_id=digest.secret_id))


def ensure_first_key(
    database: Database,
    chosen: str | None = None,
    keep: Callable[[str], None] = lambda key: None,
    digests: KeyDigests = UNKEYED,
) -> str | None:
    """Make the tenant "default" with a key if there is no tenant yet; the key, which `keep` got before it counts, or
    None.

    A `chosen` key (a setting, for containers and scripts) is added to that tenant instead, if it is not known.
    """
    try:
        with database.write() as session:
            if chosen is None:
                return _add_first(session, keep, digests)
            _add_chosen(session, chosen, digests)
    except (IntegrityError, Conflict):
        pass  # another process that started at the same time was faster
    return None


def _add_first(session: Session, keep: Callable[[str], None], digests: KeyDigests) -> str | None:
    if session.scalar(select(Tenant.id).limit(1)) is not None:
        return None
    key = new_key()
    add_key(session, add_tenant(session, FIRST_TENANT).id, "first key", key, digests=digests)
    keep(key)  # before the commit: a key that nobody could read would be the only one
    return key


def _add_chosen(session: Session, key: str, digests: KeyDigests) -> None:
    known = session.scalar(select(ApiKey).where(_is(key, digests)))
    if known is not None:
        known.created_by = None  # whoever made it, it is the operator's now
        return
    tenant = session.scalar(select(Tenant).where(Tenant.name == FIRST_TENANT)) or add_tenant(session, FIRST_TENANT)
    add_key(session, tenant.id, "bootstrap", key, digests=digests)
