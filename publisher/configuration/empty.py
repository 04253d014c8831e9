"""A variable that is set to nothing: containers and service managers leave out a value so."""

from __future__ import annotations


def none_if_empty(value: object) -> object:
    """For field_validator, before the value is read: not set."""
    return None if value == "" else value
