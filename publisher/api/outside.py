"""Calls to other machines and processes, and long readings of files: apart from the threads that serve requests.

However long a Hub takes, health, signing in and everything that only asks the database are answered meanwhile. Such
calls are bounded in number, in all and for each tenant, and in time; and so is how many wait for their turn.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request

from publisher.errors import InfrastructureFault, RequestFault
from publisher.settings import Settings

Result = TypeVar("Result")
_logger = logging.getLogger(__name__)

#: requests that wait for their turn, of one tenant and in all; a request that waits costs a socket and a few KB
WAITING_PER_TENANT, WAITING = 32, 256
#: files are read by the CPU of this process, whose threads take turns: more at once only delay the others
READINGS, READINGS_PER_TENANT = 4, 2
#: seconds; text is counted at tens of MB a second
READING_SECONDS = 3600.0
#: people who come back from a provider of identities at once; strangers may make as many calls as they like
SIGN_INS = 8
#: seconds after which one who was refused may try again
RETRY_AFTER = 5
_LATER = "Try again in a moment."


class TooManyAtOnce(RequestFault):
    """This tenant has as many calls under way as it may."""

    status = 429
    slug = "too-many-at-once"
    title = "Too many at once"
    retry_after = RETRY_AFTER


class Busy(InfrastructureFault):
    """All tenants together have as many calls under way as there may be."""

    slug = "busy"
    title = "Busy"
    retry_after = RETRY_AFTER


class NoAnswer(InfrastructureFault):
    """Who was asked took too long."""

    slug = "no-answer"
    title = "No answer in time"
    retry_after = RETRY_AFTER


class Lane:
    """Blocking calls of one kind; `what` they are, in words. Lives in one event loop."""

    def __init__(self, what: str, *, at_once: int, per_tenant: int, seconds: float) -> None:
        self._what = what
        self._seconds = seconds
        self._per_tenant = per_tenant
        self._turns = asyncio.Semaphore(at_once)
        self._turns_of: dict[str, asyncio.Semaphore] = {}
        self._most, self._most_of_tenant = at_once + WAITING, per_tenant + WAITING_PER_TENANT
        self._inside: Counter[str] = Counter()
        #: calls that were not let in since the process began
        self.refused = 0

    @property
    def under_way(self) -> int:
        """Calls that run or wait for their turn."""
        return self._inside.total()

    async def run(self, tenant_id: str, asked: str, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises, in a thread of its own; `asked`: who or what makes it wait, in words.

        Raises TooManyAtOnce or Busy at once where too many wait already, NoAnswer after the lane's seconds. What goes
        on then keeps its place until it ends, so that no tenant gets more threads by asking again.
        """
        try:
            self._refuse_crowd(tenant_id)
        except (TooManyAtOnce, Busy):
            self.refused += 1
            raise
        self._inside[tenant_id] += 1
        begun = asyncio.Event()
        call = asyncio.create_task(self._in_turn(tenant_id, begun, work))
        call.add_done_callback(lambda ended: self._leave(tenant_id, ended))
        await asyncio.wait({call}, timeout=self._seconds)
        if call.done():
            return call.result()
        if not begun.is_set():
            call.cancel()
            raise Busy(f"{self._what}: none of those before this one ended within {self._seconds:g} s.", way_out=_LATER)
        _logger.warning("%s did not answer within %g s; tenant %s was told so", asked, self._seconds, tenant_id)
        raise NoAnswer(f"{asked} did not answer within {self._seconds:g} s.", way_out=_LATER)

    async def _in_turn(self, tenant_id: str, begun: asyncio.Event, work: Callable[[], Result]) -> Result:
        own = self._turns_of.setdefault(tenant_id, asyncio.Semaphore(self._per_tenant))
        async with own, self._turns:  # its own first: who waits for that stands in nobody else's way
            begun.set()
            return await in_daemon_thread(work)

    def _refuse_crowd(self, tenant_id: str) -> None:
        if self._inside[tenant_id] >= self._most_of_tenant:
            raise TooManyAtOnce(
                f"{self._inside[tenant_id]} {self._what} of yours are under way.",
                way_out="Send the next when one ended.",
            )
        if self._inside.total() >= self._most:
            raise Busy(f"{self._inside.total()} {self._what} are under way.", way_out=_LATER)

    def _leave(self, tenant_id: str, ended: asyncio.Task[Result]) -> None:
        if not ended.cancelled():
            ended.exception()  # where nobody waits any more it counts as seen
        self._inside[tenant_id] -= 1
        if not self._inside[tenant_id]:
            del self._inside[tenant_id]
            self._turns_of.pop(tenant_id, None)


class Outside:
    """The lanes of one application. `calls`: to Hubs and other processes; `readings`: of files of this machine;
    `sign_ins`: to a provider of identities, for whoever comes, so that they take no tenant's place."""

    def __init__(self, settings: Settings) -> None:
        self.calls = Lane(
            "calls to Hubs and other processes",
            at_once=settings.outside_calls,
            per_tenant=settings.outside_calls_per_tenant,
            seconds=settings.outside_seconds,
        )
        self.readings = Lane(
            "readings of files", at_once=READINGS, per_tenant=READINGS_PER_TENANT, seconds=READING_SECONDS
        )
        self.sign_ins = Lane("sign-ins", at_once=SIGN_INS, per_tenant=SIGN_INS, seconds=settings.oidc_seconds)


async def current_outside(request: Request) -> Outside:
    return cast(Outside, request.app.state.outside)


CurrentOutside = Annotated[Outside, Depends(current_outside)]


async def in_daemon_thread(work: Callable[[], Result]) -> Result:
    """What `work` returns or raises. The process may end without it, whatever it waits for."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if outcome.done():  # whoever waited was cancelled
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(cast(Result, result))

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            failure = error
        with suppress(RuntimeError):  # the event loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    # in the request's context: whose work it is
    threading.Thread(target=contextvars.copy_context().run, args=(run,), name="outside", daemon=True).start()
    return await outcome
