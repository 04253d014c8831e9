"""What is sealed is read by who has the service's secret, for what it was sealed for, unchanged, or not at all."""

from __future__ import annotations

import pytest

from publisher.signing.sealing import CannotUnseal, seal, unseal


def test_what_is_sealed_is_read_again() -> None:
    for text in ("", "whsec_abc", "ü" * 1000):
        assert unseal(b"secret", "webhook 1", seal(b"secret", "webhook 1", text)) == text


def test_the_same_text_is_never_sealed_alike_and_never_shows() -> None:
    sealed = {seal(b"secret", "webhook 1", "whsec_abc") for _ in range(10)}
    assert len(sealed) == 10
    assert not any("whsec" in each for each in sealed)


@pytest.mark.parametrize(("secret", "purpose"), [(b"other", "webhook 1"), (b"secret", "webhook 2"), (b"", "webhook 1")])
def test_with_another_secret_or_for_something_else_it_is_not(secret: bytes, purpose: str) -> None:
    with pytest.raises(CannotUnseal, match=purpose):
        unseal(secret, purpose, seal(b"secret", "webhook 1", "text"))


def test_what_was_changed_is_refused() -> None:
    sealed = seal(b"secret", "webhook 1", "text")
    for place in range(len(sealed)):
        other = "A" if sealed[place] != "A" else "B"
        with pytest.raises(CannotUnseal):
            unseal(b"secret", "webhook 1", sealed[:place] + other + sealed[place + 1 :])
    for damaged in ("", "v1.", sealed[:-8], "v2" + sealed[2:], "v1.é"):
        with pytest.raises(CannotUnseal):
            unseal(b"secret", "webhook 1", damaged)
