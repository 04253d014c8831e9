"""Tenants, and what opens, bounds and belongs to each: keys, people, namespaces, quotas."""

from __future__ import annotations

import time
from typing import ClassVar

from sqlalchemy import JSON, ForeignKey, Index, Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from publisher.keys.scopes import Scope, rights
from publisher.store.models.table import Table, list_index, new_id


class Tenant(Table):
    """`event_seq` is the number of the last event of all its jobs: it grows in the order of commits, without gaps.

    `suspended_at`: since then nobody acts for it (publisher.store.tenants). `local_roots`: folders from which it alone
    may register by path; null: those of the settings.
    `webhooks`: how many it has. Who numbers events reads it with the number: without a webhook nothing more is done.
    """

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("ten"))
    name: Mapped[str] = mapped_column(unique=True)
    event_seq: Mapped[int] = mapped_column(default=0)
    suspended_at: Mapped[float | None]
    local_roots: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    webhooks: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    created_at: Mapped[float] = mapped_column(default=time.time)


class HubNamespace(Table):
    """Whose a namespace of the embedded Hub is; null: taken back, nobody's until it is granted again."""

    __tablename__ = "hub_namespaces"

    namespace: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str | None] = mapped_column(ForeignKey("tenants.id"), index=True)
    granted_at: Mapped[float] = mapped_column(default=time.time)


class ApiKey(Table):
    """The key itself is shown once; `prefix` are its first characters, to tell keys apart.

    `digest` and `secret_id` are a publisher.keys.digests.Digest. `created_by`: id of the key, or of a person's
    membership, that asked for it; null: the service's operator made it. `scopes`: of publisher.keys.scopes; null: all,
    as before there were scopes. `last_used_at` is a minute old at most while the key is in use.
    """

    __tablename__ = "api_keys"
    __table_args__ = (list_index(),)
    id_kind: ClassVar[str] = "key"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(ApiKey.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    prefix: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[float] = mapped_column(default=time.time)
    revoked_at: Mapped[float | None]
    created_by: Mapped[str | None]
    scopes: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    expires_at: Mapped[float | None]
    last_used_at: Mapped[float | None]
    secret_id: Mapped[str | None]

    @property
    def rights(self) -> frozenset[Scope]:
        """What it may do, with what its scopes include."""
        return rights(self.scopes)


class Person(Table):
    """Somebody who signed in by OpenID Connect: `issuer` and `subject` are who, the rest is what was said last.

    `email` is null unless the provider has verified it.
    """

    __tablename__ = "people"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("per"))
    issuer: Mapped[str]
    subject: Mapped[str]
    email: Mapped[str | None] = mapped_column(index=True)
    name: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=time.time)
    signed_in_at: Mapped[float] = mapped_column(default=time.time)


class Membership(Table):
    """A person's place in a tenant: what a session of the dashboard stands on where it does not stand on a key.

    `email`: whom the operator invited, lower-case; null: a rule of the settings made it. `person_id` is null until the
    invited one signs in. `role` is one of publisher.people.roles; `ended_at`: the operator took it away.
    """

    __tablename__ = "memberships"
    __table_args__ = (UniqueConstraint("tenant_id", "person_id"), UniqueConstraint("tenant_id", "email"))

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("mem"))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    person_id: Mapped[str | None] = mapped_column(ForeignKey("people.id"), index=True)
    email: Mapped[str | None] = mapped_column(index=True)
    role: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=time.time)
    used_at: Mapped[float | None]
    ended_at: Mapped[float | None]

    tenant: Mapped[Tenant] = relationship()
    person: Mapped[Person | None] = relationship()


class HubCredential(Table):
    """Where a tenant's variants are published. Tokens are sealed (publisher.store.hub_credentials); `…_end` are their
    last letters. `set_by`: id of the key or membership that sent them. `read_token`: for gated base models."""

    __tablename__ = "hub_credentials"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    endpoint: Mapped[str]
    write_token: Mapped[str]
    write_token_end: Mapped[str]
    read_token: Mapped[str | None]
    read_token_end: Mapped[str | None]
    set_by: Mapped[str]
    set_at: Mapped[float]
    used_at: Mapped[float | None]


class EndedSession(Table):
    """A session of the dashboard that was signed out of: the sha256 of its cookie, kept until that is over anyway."""

    __tablename__ = "ended_sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    expires_at: Mapped[float]


class QuotaLimit(Table):
    """The most that a tenant may have of something (publisher.store.quotas); null: without limit. Of the tenant `*`:
    what those may have who have no row of their own."""

    __tablename__ = "quota_limits"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    most: Mapped[int | None]


class StoredObject(Table):
    """A content that a repository of the embedded Hub holds; `size` in bytes. `repository` is namespace/name."""

    __tablename__ = "hub_objects"
    __table_args__ = (Index("ix_hub_objects_tenant", "tenant_id", "sha256", "size"),)

    repository: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    size: Mapped[int]
    at: Mapped[float] = mapped_column(default=time.time)
