"""Job tokens: only ours, only unchanged, only as long as the lease."""

from __future__ import annotations

import base64
import json
import time

import pytest

from publisher.jobs import service, transitions
from publisher.jobs.leases import Lease
from publisher.jobs.tokens import JobToken, holder_of, read_job_token, sign_job_token
from publisher.signing.signer import Signer
from publisher.store.database import Database
from tests.jobs import rows

SECRET = b"s" * 32
LEASE = Lease("job_1", 3)


def signed(claims: object) -> str:
    """A token of ours with whatever in it."""
    text = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    mac = base64.urlsafe_b64encode(Signer(SECRET, "job-token").sign(text)).rstrip(b"=").decode()
    return f"lpj_{text}.{mac}"


def is_good(database: Database, token: str) -> bool:
    read = read_job_token(SECRET, token)
    with database.read() as session:
        return read is not None and holder_of(session, read) is not None


def test_token_says_which_lease_it_belongs_to() -> None:
    assert read_job_token(SECRET, sign_job_token(SECRET, LEASE)) == JobToken("job_1", 3)


def test_token_signed_with_another_secret_is_refused() -> None:
    assert read_job_token(b"t" * 32, sign_job_token(SECRET, LEASE)) is None


@pytest.mark.parametrize("position", [4, 12, -1])
def test_changed_token_is_refused(position: int) -> None:
    letters = list(sign_job_token(SECRET, LEASE))
    letters[position] = "B" if letters[position] == "A" else "A"
    assert read_job_token(SECRET, "".join(letters)) is None


@pytest.mark.parametrize("token", ["", "lpj_", "lpj_.", "lpj_ü.ü", "hf_abc", "lpj_e30.e30"])
def test_anything_else_is_refused(token: str) -> None:
    assert read_job_token(SECRET, token) is None


@pytest.mark.parametrize("claims", [{}, [], [1, 2], ["job_1"], ["job_1", "3"], ["ten_1", "job_1", 1.0]])
def test_signed_claims_of_another_form_are_refused(claims: object) -> None:
    assert read_job_token(SECRET, signed(claims)) is None


def test_token_stands_for_the_job_s_repository(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.read() as session:
        holder = holder_of(session, JobToken(lease.job_id, lease.token))
    assert holder is not None
    assert (holder.tenant_id, holder.repo_id) == (rows.load(database, job_id).tenant_id, "org/small")


def test_token_is_good_as_long_as_the_lease(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id, seconds=60)
    token = sign_job_token(SECRET, lease)
    assert is_good(database, token)
    with database.write() as session:
        service.cancel(session, job_id)
    assert is_good(database, token)  # what was begun is still to be read back
    rows.let_pass(database, job_id, 61)
    assert not is_good(database, token)


def test_token_ends_with_the_try_and_the_next_has_its_own(database: Database) -> None:
    job_id = rows.add_job(database)
    first = rows.claim(database, job_id)
    with database.write() as session:
        transitions.release(session, first)
    assert not is_good(database, sign_job_token(SECRET, first))
    second = rows.claim(database, job_id)
    assert not is_good(database, sign_job_token(SECRET, first))
    assert is_good(database, sign_job_token(SECRET, second))
    with database.write() as session:
        transitions.succeed(session, second, {}, {}, [])
    assert not is_good(database, sign_job_token(SECRET, second))


def test_token_of_a_release_before_is_good_while_its_job_runs(database: Database) -> None:
    """A job may run while the service is replaced."""
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    token = signed([rows.load(database, job_id).tenant_id, job_id, time.time() + 60])
    assert is_good(database, token)
    with database.write() as session:
        transitions.succeed(session, lease, {}, {}, [])
    assert not is_good(database, token)
