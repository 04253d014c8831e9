"""A page's form as a browser would send it: every control with what stands in it."""

from __future__ import annotations

from html.parser import HTMLParser

import httpx


class _Controls(HTMLParser):
    """Of the forms whose action is `action`."""

    def __init__(self, action: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self._action, self._inside = action, False
        self._select: str | None = None
        self._area: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name, value = given.get("name") or "", given.get("value") or ""
        if tag == "form":
            self._inside = given.get("action") == self._action
        if not self._inside:
            return
        if tag == "input" and (given.get("type") not in {"checkbox", "radio"} or "checked" in given):
            self.values[name] = value or ("on" if given.get("type") == "checkbox" else "")
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select is not None and ("selected" in given or self._select not in self.values):
            self.values[self._select] = value
        elif tag == "textarea":
            self._area, self.values[name] = name, ""

    def handle_endtag(self, tag: str) -> None:
        self._select = None if tag == "select" else self._select
        self._area = None if tag == "textarea" else self._area
        self._inside = self._inside and tag != "form"

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self.values[self._area] += data


def form(page: httpx.Response, action: str) -> dict[str, str]:
    """Names and values; the first line break of a text area is none, as in a browser."""
    controls = _Controls(action)
    controls.feed(page.text)
    assert controls.values, f"no form of {action}: {page.text}"
    return {name: value.removeprefix("\n") for name, value in controls.values.items()}
