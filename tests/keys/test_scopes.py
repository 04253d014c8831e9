"""Every scope is declared, includes only what there is, and words that are no scope are refused by name."""

from __future__ import annotations

import pytest

from publisher.errors import RequestFault
from publisher.keys.scopes import ALL, SCOPES, GivesMore, MissingScope, Scope, parse, refuse_more, require, rights


def test_each_scope_is_declared_once() -> None:
    assert [each.scope for each in SCOPES] == list(Scope)
    assert all(each.opens for each in SCOPES)


def test_to_write_is_to_read_and_nothing_gives_admin() -> None:
    assert rights(["variants:write"]) == {Scope.VARIANTS_WRITE, Scope.MODELS_READ}
    assert rights(["hub:write"]) == {Scope.HUB_WRITE, Scope.HUB_READ}
    assert all(Scope.ADMIN not in each.includes for each in SCOPES)


def test_a_key_from_before_may_do_everything_and_one_without_scopes_nothing() -> None:
    assert rights(None) == ALL
    assert rights([]) == frozenset()


def test_a_scope_of_a_later_version_gives_nothing() -> None:
    assert rights(["moon:write", "hub:read"]) == {Scope.HUB_READ}


def test_who_lacks_a_scope_is_told_which_and_how_to_get_it() -> None:
    require(Scope.ADMIN, ALL)
    with pytest.raises(MissingScope, match=r"lacks the scope admin.*key create --tenant NAME --scope admin"):
        require(Scope.ADMIN, rights(["hub:write", "models:write", "variants:write"]))


def test_nobody_gives_more_than_they_have() -> None:
    held = rights(["admin", "variants:write"])
    refuse_more([Scope.ADMIN, Scope.MODELS_READ], held)
    with pytest.raises(GivesMore, match="hub:read and models:write"):
        refuse_more([Scope.MODELS_WRITE, Scope.HUB_READ], held)


def test_scopes_are_read_from_a_list_of_words() -> None:
    assert parse("hub:read, admin,hub:read") == [Scope.HUB_READ, Scope.ADMIN]
    assert set(parse("all")) == ALL
    for wrong in ("", "hub:delete", "models:read,everything"):
        with pytest.raises(RequestFault, match="no scope"):
            parse(wrong)
