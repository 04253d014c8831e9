"""What is kept of a key needs the service's secret to be made again, and says which."""

from __future__ import annotations

import hashlib

from publisher.keys.digests import UNKEYED, Digest, KeyDigests, secret_id

OLD, NEW = b"o" * 32, b"n" * 32


def test_a_digest_is_no_hash_of_the_key_alone() -> None:
    bare = hashlib.sha256(b"key").hexdigest()
    assert KeyDigests([OLD]).current("key").value != bare
    assert UNKEYED.current("key") == Digest(bare, None)


def test_another_secret_makes_another_digest_and_says_so() -> None:
    old, new = KeyDigests([OLD]).current("key"), KeyDigests([NEW]).current("key")
    assert old.value != new.value
    assert (old.secret_id, new.secret_id) == (secret_id(OLD), secret_id(NEW))


def test_keys_are_found_under_every_secret_that_counts_and_kept_under_the_first() -> None:
    both = KeyDigests([NEW, OLD])
    assert both.current("key") == KeyDigests([NEW]).current("key")
    assert both.candidates("key") == [
        KeyDigests([NEW]).current("key"),
        KeyDigests([OLD]).current("key"),
        UNKEYED.current("key"),
    ]


def test_the_id_of_a_secret_gives_nothing_of_it_away() -> None:
    assert secret_id(OLD) not in hashlib.sha256(OLD).hexdigest()
    assert len(secret_id(OLD)) == 8
