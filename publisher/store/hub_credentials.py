"""A tenant's Hub: where its variants are published, and the tokens for that, which lie sealed in the database."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import SecretStr
from sqlalchemy import or_, update
from sqlalchemy.orm import Session

from publisher.errors import CredentialFault
from publisher.settings import Settings
from publisher.signing.keyring import Keyring
from publisher.signing.sealing import Sealer, secret_id
from publisher.store.audit import record
from publisher.store.database import clock, database_now
from publisher.store.models import HubCredential
from publisher.store.sealed import hub_token

PUT = "PUT /v1/hub-credentials"
#: letters of a token that are shown, to tell it from others
_SHOWN = 4
#: seconds; a use sooner after the last one is not written down
_USE_SECONDS = 60.0


@dataclass(frozen=True)
class OpenedCredential:
    """`write_token`: to publish at `endpoint`."""

    endpoint: str
    write_token: str = field(repr=False)


def find(session: Session, tenant_id: str) -> HubCredential | None:
    return session.get(HubCredential, tenant_id)


def put(
    session: Session,
    keyring: Keyring,
    tenant_id: str,
    endpoint: str,
    *,
    write_token: SecretStr,
    read_token: SecretStr | None,
    set_by: str,
) -> HubCredential:
    """In the place of what was there. `set_by`: id of the key or membership that asked."""
    row = session.get(HubCredential, tenant_id, with_for_update=True) or HubCredential(tenant_id=tenant_id)
    row.endpoint, row.set_by, row.set_at, row.used_at = endpoint, set_by, clock(session), None
    row.write_token, row.write_token_end = _sealed(keyring, "write", tenant_id, write_token)
    row.read_token, row.read_token_end = (
        (None, None) if read_token is None else _sealed(keyring, "read", tenant_id, read_token)
    )
    session.add(row)
    session.flush()
    record(session, "hub_credential.put", endpoint, tenant_id=tenant_id)
    return row


def delete(session: Session, tenant_id: str) -> bool:
    """Whether there was one."""
    row = session.get(HubCredential, tenant_id, with_for_update=True)
    if row is not None:
        session.delete(row)
        record(session, "hub_credential.delete", row.endpoint, tenant_id=tenant_id)
    return row is not None


def opened(row: HubCredential, keyring: Keyring) -> OpenedCredential:
    """Raises CredentialFault if it cannot be opened here."""
    return OpenedCredential(row.endpoint, _open(row, "write", row.write_token, keyring))


def opened_at(session: Session, settings: Settings, tenant_id: str, endpoint: str) -> OpenedCredential | None:
    """The tenant's, if it is for the Hub at `endpoint`. Raises CredentialFault if it cannot be opened here."""
    row = find(session, tenant_id)
    return opened(row, settings.sealing_secrets()) if row is not None and row.endpoint == endpoint else None


def read_token(session: Session, settings: Settings, tenant_id: str) -> str | None:
    """For base models and datasets: the tenant's, or the service's; None if neither has one.

    Raises CredentialFault if the tenant's cannot be opened here.
    """
    row = find(session, tenant_id)
    if row is not None and row.read_token is not None:
        return _open(row, "read", row.read_token, settings.sealing_secrets())
    return settings.base_model_token.get_secret_value() if settings.base_model_token else None


def note_use(session: Session, tenant_id: str) -> None:
    """It is used now."""
    now = database_now()
    long_ago = or_(HubCredential.used_at.is_(None), HubCredential.used_at < now - _USE_SECONDS)
    session.execute(update(HubCredential).where(HubCredential.tenant_id == tenant_id, long_ago).values(used_at=now))


def _sealer(keyring: Keyring, kind: str) -> Sealer:
    return Sealer(keyring, hub_token(kind))


def _sealed(keyring: Keyring, kind: str, tenant_id: str, token: SecretStr) -> tuple[str, str]:
    text = token.get_secret_value()
    return _sealer(keyring, kind).seal(text, tenant_id), text[-_SHOWN:]


def _open(row: HubCredential, kind: str, sealed: str, keyring: Keyring) -> str:
    text = _sealer(keyring, kind).open(sealed, row.tenant_id)
    if text is None:
        raise CredentialFault(
            f"the tenant's {kind} token for {row.endpoint} cannot be opened here: it is sealed under secret "
            f"{secret_id(sealed)}, and this process has {', '.join(secret.id for secret in keyring)}.",
            way_out="Give this process the PUBLISHER_SECRET, PUBLISHER_ENCRYPTION_KEY and older ones that the API has "
            f"and restart it, or send the token again ({PUT}).",
        )
    return text
