"""Job tokens: only ours, only unchanged, only for a while."""

from __future__ import annotations

import time

import pytest

from publisher.jobs.tokens import JobToken, read_job_token, sign_job_token

SECRET = b"s" * 32


def test_token_says_whose_job_it_belongs_to() -> None:
    expires = time.time() + 60
    token = sign_job_token(SECRET, "ten_1", "job_1", expires)
    assert read_job_token(SECRET, token) == JobToken("ten_1", "job_1", expires)


def test_expired_token_is_refused() -> None:
    assert read_job_token(SECRET, sign_job_token(SECRET, "ten_1", "job_1", time.time() - 1)) is None


def test_token_signed_with_another_secret_is_refused() -> None:
    assert read_job_token(b"t" * 32, sign_job_token(SECRET, "ten_1", "job_1", time.time() + 60)) is None


@pytest.mark.parametrize("position", [4, 20, -1])
def test_changed_token_is_refused(position: int) -> None:
    letters = list(sign_job_token(SECRET, "ten_1", "job_1", time.time() + 60))
    letters[position] = "B" if letters[position] == "A" else "A"
    assert read_job_token(SECRET, "".join(letters)) is None


@pytest.mark.parametrize("token", ["", "lpj_", "lpj_.", "lpj_ü.ü", "hf_abc", "lpj_e30.e30"])
def test_anything_else_is_refused(token: str) -> None:
    assert read_job_token(SECRET, token) is None
