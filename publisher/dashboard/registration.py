"""Registering a thing from a page: its form, the form with what is wrong, and the way to what was made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from publisher.api.local_paths import roots_of
from publisher.api.service import Service
from publisher.dashboard.access import Visitor
from publisher.dashboard.answers import page, see_other
from publisher.dashboard.typed_form import ModelForm, Section, faults_of
from publisher.errors import PublisherError
from publisher.store.database import clock


@dataclass(frozen=True)
class Registration:
    """`start`: address of the list, and of what is made below it; `word`: the list's name. `busy`: what is said while
    it lasts. `of_folders`: the section that is only for who may read folders."""

    form: ModelForm
    start: str
    word: str
    title: str
    busy: str
    of_folders: Section
    required: frozenset[str] = field(default=frozenset())

    def shown(
        self,
        service: Service,
        visitor: Visitor,
        texts: dict[str, str] | None = None,
        error: ValidationError | PublisherError | None = None,
    ) -> HTMLResponse:
        """The form with what was typed, and what is wrong with it."""
        found, status = faults_of(error) if error else ([], 200)
        roots = roots_of(service.settings, visitor.caller.local_roots)
        with service.database.read() as session:
            now = clock(session)
        return page(
            "register.html",
            visitor=visitor,
            status=status,
            now=now,
            section=self.start,
            title=self.title,
            address=f"{self.start}/new",
            back=(self.start, self.word),
            busy=self.busy,
            form_sections=[each for each in self.form.sections if each is not self.of_folders or roots],
            fields=self.form.fields,
            texts=texts or {},
            faults=self.form.faults(found),
            roots=roots,
            required=self.required,
        )

    async def answer(
        self, service: Service, visitor: Visitor, typed: FormData, register: Callable[[Any], Awaitable[str]]
    ) -> Response:
        """`register`: takes the form's model, returns the id of what was made, or raises what the form is refused
        for."""
        texts = self.form.texts(typed)
        try:
            id = await register(self.form.model.model_validate(self.form.body(texts)))
        except (ValidationError, PublisherError) as error:
            return await run_in_threadpool(self.shown, service, visitor, texts, error)
        return see_other(f"{self.start}/{id}")
