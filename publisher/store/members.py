"""People and their memberships of tenants: who comes in by invitation, who by a rule, and what still counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session, joinedload

from publisher.errors import NotFound, RequestFault
from publisher.people.identity import Identity, normal_email, printed
from publisher.people.roles import Role
from publisher.store import keys
from publisher.store.audit import record
from publisher.store.database import clock
from publisher.store.models import Membership, Person, Tenant
from publisher.store.tenants import find_tenant


def standing() -> Select[Membership]:
    """Memberships that somebody has taken up and that count. The one place that says so, for pages and streams."""
    taken_up = select(Membership).join(Tenant).where(Membership.person_id.is_not(None))
    return taken_up.where(Membership.ended_at.is_(None))


def standing_one(session: Session, id: str) -> Membership | None:
    """With its tenant and person; None if there is none with this id that counts."""
    found = standing().where(Membership.id == id)
    return session.scalar(found.options(joinedload(Membership.tenant), joinedload(Membership.person)))


def still_standing(session: Session, ids: Collection[str]) -> set[str]:
    """Those of these memberships that count, of tenants that are not suspended."""
    found = standing().where(Membership.id.in_(ids), Tenant.suspended_at.is_(None))
    return set(session.scalars(found.with_only_columns(Membership.id)))


def of_person(session: Session, person_id: str) -> list[Membership]:
    """Those that count, the one that was used last first, then the oldest; of suspended tenants at the end."""
    rows = session.scalars(standing().where(Membership.person_id == person_id).options(joinedload(Membership.tenant)))
    return sorted(rows, key=lambda row: (row.tenant.suspended_at is not None, -(row.used_at or 0), row.id))


def sign_in(session: Session, someone: Identity, by_rule: Mapping[str, Role]) -> list[Membership]:
    """Their memberships, as `of_person`; none for one whom nobody invited and no rule covers, who is not kept either.

    `by_rule`: name of tenant → role; tenants that do not exist are left out. An invitation counts for the first who
    comes with its address; who is in by a rule that no longer covers them is out.
    """
    person = session.scalar(
        select(Person).where(Person.issuer == someone.issuer, Person.subject == someone.subject).with_for_update()
    )
    invited = _invitations(session, someone.email)
    tenants = session.scalars(select(Tenant).where(Tenant.name.in_(by_rule))).all()
    if person is None and not invited and not tenants:
        return []
    person = _note(session, person, someone)
    for invitation in invited:
        _take_up(session, invitation, person)
    _follow_rules(session, person, {tenant.id: by_rule[tenant.name] for tenant in tenants})
    session.flush()
    return of_person(session, person.id)


def _invitations(session: Session, email: str | None) -> Sequence[Membership]:
    if email is None:
        return []
    open_ones = select(Membership).where(Membership.person_id.is_(None), Membership.ended_at.is_(None))
    return session.scalars(open_ones.where(Membership.email == email).with_for_update()).all()


def _note(session: Session, person: Person | None, someone: Identity) -> Person:
    now = clock(session)
    if person is None:
        person = Person(issuer=someone.issuer, subject=someone.subject)
        session.add(person)
    person.email, person.name, person.signed_in_at = someone.email, someone.called, now
    session.flush()
    return person


def _take_up(session: Session, invitation: Membership, person: Person) -> None:
    before = _in_tenant(session, invitation.tenant_id, person.id)
    if before is not None:  # by a rule, or by an older address of theirs: the operator's word is the newer one
        keys.hand_over(session, before.id, invitation.id)
        session.delete(before)
        session.flush()
    invitation.person_id = person.id
    session.flush()


def _follow_rules(session: Session, person: Person, roles: Mapping[str, Role]) -> None:
    for tenant_id, role in roles.items():
        row = _in_tenant(session, tenant_id, person.id)
        if row is None:
            session.add(Membership(tenant_id=tenant_id, person_id=person.id, role=role.value))
        elif row.email is None:  # what the operator said, an end included, stands above rules
            row.role = role.value
    by_rule = select(Membership).where(Membership.person_id == person.id, Membership.email.is_(None))
    for row in session.scalars(by_rule):
        if row.tenant_id not in roles and row.ended_at is None:
            session.delete(row)


def _in_tenant(session: Session, tenant_id: str, person_id: str) -> Membership | None:
    return session.scalar(
        select(Membership).where(Membership.tenant_id == tenant_id, Membership.person_id == person_id)
    )


def use(session: Session, membership: Membership) -> None:
    """A session begins with it."""
    membership.used_at = clock(session)


def add(session: Session, tenant_name: str, who: str, role: Role) -> Membership:
    """Invite an address, or give the member with this address or id another role.

    One that was ended is begun anew, as another row: sessions of before stay ended, and an address counts for whoever
    comes with it next. Raises NotFound for the tenant, RequestFault for the address.
    """
    tenant = find_tenant(session, tenant_name)
    address = normal_email(who)
    known = _found(session, tenant.id, address or printed(who))
    if address is None and not known:
        raise RequestFault(f"{who!r} is no e-mail address.", way_out="Give one as name@example.org.")
    going_on = [row for row in known if row.ended_at is None]
    row = going_on[0] if going_on else _begin_anew(session, tenant.id, address, known)
    row.role, row.email = role.value, row.email or address
    changes = not going_on or session.is_modified(row)
    session.flush()
    if changes:
        record(session, "member.add", row.id, tenant_id=tenant.id, role=row.role)
    return row


def _begin_anew(session: Session, tenant_id: str, address: str | None, ended: Sequence[Membership]) -> Membership:
    row = Membership(tenant_id=tenant_id, email=address, role=Role.VIEWER.value)
    for before in ended:
        if address is None:  # named by its id: it stays the same person's
            row.email, row.person_id = before.email, before.person_id
        session.delete(before)
    session.flush()
    session.add(row)
    session.flush()
    for before in ended:
        keys.hand_over(session, before.id, row.id)
    return row


def remove(session: Session, tenant_name: str, who: str, *, also_ended: bool = False) -> list[Membership]:
    """End the memberships of an address, or the one with this id: their sessions end within a second, and no rule lets
    them in again. `also_ended`: gives those that had ended before as well. Raises NotFound."""
    tenant = find_tenant(session, tenant_name)
    known = _found(session, tenant.id, normal_email(who) or printed(who))
    rows = [row for row in known if also_ended or row.ended_at is None]
    if not rows:
        raise NotFound(f"{who} is no member of {tenant_name!r}.", way_out="publisher admin member list names them all.")
    for row in (row for row in rows if row.ended_at is None):
        row.ended_at = clock(session)
        record(session, "member.remove", row.id, tenant_id=tenant.id)
    return rows


def members(session: Session, tenant_name: str | None = None) -> Sequence[Membership]:
    """All with tenant and person, ended ones too, by tenant and age; of one tenant if it is named. Raises NotFound."""
    rows = select(Membership).join(Tenant).order_by(Tenant.name, Membership.id)
    if tenant_name is not None:
        rows = rows.where(Membership.tenant_id == find_tenant(session, tenant_name).id)
    return session.scalars(rows.options(joinedload(Membership.tenant), joinedload(Membership.person))).all()


def _found(session: Session, tenant_id: str, who: str) -> list[Membership]:
    """By the address of the invitation, of the person, or by id; what was invited by this address first."""
    found = select(Membership).outerjoin(Person).where(Membership.tenant_id == tenant_id)
    rows = session.scalars(found.where(or_(Membership.email == who, Person.email == who, Membership.id == who)))
    return sorted(rows.unique(), key=lambda row: (row.email != who, row.id))
