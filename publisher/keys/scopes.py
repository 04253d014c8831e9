"""What API keys may do: each scope is declared once, and everything else walks over `SCOPES`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from publisher.errors import PublisherError, RequestFault, listed


class Scope(StrEnum):
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    VARIANTS_WRITE = "variants:write"
    HUB_READ = "hub:read"
    HUB_WRITE = "hub:write"
    ADMIN = "admin"


@dataclass(frozen=True)
class Declared:
    """`opens` in words for docs; `includes`: what a key with this scope may do besides."""

    scope: Scope
    opens: str
    includes: tuple[Scope, ...] = ()


#: in the order in which docs name them
SCOPES: tuple[Declared, ...] = (
    Declared(
        Scope.MODELS_READ,
        "look at base models, corpora, families, plans, variants and their files, sweeps, jobs, events and workers; "
        "the dashboard's pages",
    ),
    Declared(Scope.MODELS_WRITE, "register, label and delete base models and corpora", (Scope.MODELS_READ,)),
    Declared(
        Scope.VARIANTS_WRITE,
        "order, label and delete variants and sweeps; pause, resume, cancel, retry and delete jobs, "
        "on the dashboard, too",
        (Scope.MODELS_READ,),
    ),
    Declared(Scope.HUB_READ, "read the tenant's private repositories of the embedded Hub, on the dashboard, too"),
    Declared(
        Scope.HUB_WRITE,
        "create, change and delete repositories of the embedded Hub; with `variants:write`, delete a variant "
        "together with its publication",
        (Scope.HUB_READ,),
    ),
    Declared(
        Scope.ADMIN,
        "make, list and revoke the tenant's API keys, with the maker's own scopes at most; webhooks, the tenant's own "
        "Hub (`/v1/hub-credentials`), the audit log; the dashboard's pages of these",
    ),
)
_DECLARED = {each.scope: each for each in SCOPES}
ALL: frozenset[Scope] = frozenset(Scope)


class MissingScope(RequestFault):
    """The key is good, and not for this."""

    status = 403
    slug = "missing-scope"
    title = "Scope missing"

    def __init__(self, scope: Scope) -> None:
        super().__init__(
            f"This API key lacks the scope {scope}.",
            way_out="Make a key that has it with one of the scope admin, or ask the service's operator: "
            f"publisher admin key create --tenant NAME --scope {scope}.",
        )


def rights(scopes: Iterable[str] | None) -> frozenset[Scope]:
    """Those scopes with what they include; None, of keys from before there were scopes: all. What only a later version
    knows gives nothing."""
    if scopes is None:
        return ALL
    known = [_DECLARED[Scope(scope)] for scope in scopes if scope in ALL]
    return frozenset(right for each in known for right in (each.scope, *each.includes))


def require(scope: Scope, held: frozenset[Scope]) -> None:
    """Raises MissingScope."""
    if scope not in held:
        raise MissingScope(scope)


def refuse_more(asked: Iterable[Scope], held: frozenset[Scope]) -> None:
    """Raises GivesMore where a key would get what its maker has not."""
    more = sorted(set(asked) - held)
    if more:
        raise GivesMore(
            f"the key that you sent does not have {listed(more)} itself.",
            field="scopes",
            way_out=f"It can give {listed(sorted(held), 'or')}.",
        )


def ends_within(asked: float | None, makers: float | None) -> float | None:
    """When a key ends, in seconds since 1970: with its maker if it is not asked for. Raises OutlivesMaker."""
    if asked is not None and makers is not None and asked > makers:
        raise OutlivesMaker(
            f"the key that you sent ends itself at {makers:.0f}.",
            field="expires_at",
            way_out="Give that or an earlier time, or send a key without an end.",
        )
    return makers if asked is None else asked


class GivesMore(RequestFault):
    """A key is to have scopes that its maker has not."""

    status = 403
    slug = "missing-scope"
    title = "Scope missing"


class OutlivesMaker(RequestFault):
    """A key is to work for longer than its maker does."""

    status = 403
    slug = "key-outlives-maker"
    title = "Key would outlive its maker"


def parse(text: str) -> list[Scope]:
    """`models:read,hub:read` → both; `all` → every one. RequestFault for another word."""
    if text.strip() == "all":
        return sorted(ALL)
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in ALL]
    if unknown or not words:
        raise unknown_scope(unknown)
    return [Scope(word) for word in dict.fromkeys(words)]


def unknown_scope(words: list[str]) -> PublisherError:
    named = f"{listed(map(repr, words))} is no scope." if words else "no scope is named."
    return RequestFault(named, field="scopes", way_out=f"There are {listed(ALL_WORDS)}.")


ALL_WORDS = [scope.value for scope in Scope]
