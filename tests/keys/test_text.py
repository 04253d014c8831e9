"""Keys carry a checksum: damage is told without a look-up, and leaked keys are found without false alarms."""

from __future__ import annotations

import re
import zlib

import pytest

from publisher.keys.text import PATTERN, is_damaged, new_key

KEY = new_key()


def test_a_new_key_is_whole_and_fits_the_pattern_that_scanners_are_told() -> None:
    for key in {new_key() for _ in range(100)}:
        assert PATTERN.fullmatch(key)
        assert not is_damaged(key)


def test_the_checksum_is_that_of_everything_before_it_in_base_62() -> None:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number = 0
    for letter in KEY[-6:]:
        number = number * 62 + digits.index(letter)
    assert number == zlib.crc32(KEY[:-6].encode())


@pytest.mark.parametrize("length", range(len("loramk_"), len(KEY)))
def test_a_key_that_was_cut_short_is_damaged(length: int) -> None:
    assert is_damaged(KEY[:length])


@pytest.mark.parametrize("place", range(len("loramk_"), len(KEY)))
def test_one_wrong_letter_is_damage(place: int) -> None:
    wrong = "A" if KEY[place] != "A" else "B"
    assert is_damaged(f"{KEY[:place]}{wrong}{KEY[place + 1 :]}")


@pytest.mark.parametrize("key", ["", "loram_chosen", f"loram_{'k' * 43}", "hf_abc", "lpj_abc.def", "loram"])
def test_keys_from_before_and_chosen_ones_are_looked_up(key: str) -> None:
    assert not is_damaged(key)


def test_the_pattern_finds_a_key_in_a_text() -> None:
    found = re.findall(PATTERN, f"export PUBLISHER_API_KEY={KEY}\nkey: loramk_short")
    assert found == [KEY]
