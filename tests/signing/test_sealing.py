"""What is sealed opens for its owner and purpose, under a secret that is still there, and for nothing else."""

from __future__ import annotations

import pytest

from publisher.signing.keyring import Keyring
from publisher.signing.sealing import Sealer, secret_id

OLD, NEW = b"the old one, 32 bytes or so, ...", b"the new one, 32 bytes or so, ..."


def test_what_was_sealed_is_opened() -> None:
    sealer = Sealer(NEW, "hub token")
    sealed = sealer.seal("hf_grün", "ten_1")
    assert sealer.open(sealed, "ten_1") == "hf_grün"
    assert "hf_" not in sealed
    assert sealer.seal("hf_grün", "ten_1") != sealed


def test_another_owner_or_purpose_opens_nothing() -> None:
    sealed = Sealer(NEW, "hub token").seal("hf_x", "ten_1")
    assert Sealer(NEW, "hub token").open(sealed, "ten_2") is None
    assert Sealer(NEW, "webhook").open(sealed, "ten_1") is None


def test_old_secrets_open_until_they_are_taken_away() -> None:
    sealed = Sealer(OLD, "hub token").seal("hf_x", "ten_1")
    both = Sealer(Keyring(NEW, OLD), "hub token")
    assert both.open(sealed, "ten_1") == "hf_x"
    assert not both.is_newest(sealed)
    again = both.seal("hf_x", "ten_1")
    assert both.is_newest(again)
    assert Sealer(NEW, "hub token").open(again, "ten_1") == "hf_x"
    assert Sealer(NEW, "hub token").open(sealed, "ten_1") is None
    assert secret_id(sealed) == Keyring(OLD).newest.id


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_a_changed_value_is_not_opened(place: int) -> None:
    sealed = Sealer(NEW, "hub token").seal("hf_a-token", "ten_1")
    other = "A" if sealed[place] != "A" else "B"
    assert Sealer(NEW, "hub token").open(sealed[:place] + other + sealed[place + 1 :], "ten_1") is None


@pytest.mark.parametrize(
    "junk", ["", "v1", "v1.x.y", f"v1.{Keyring(NEW).newest.id}.ä", f"v1.{Keyring(NEW).newest.id}."]
)
def test_what_was_never_sealed_is_not_opened(junk: str) -> None:
    assert Sealer(NEW, "hub token").open(junk, "ten_1") is None
