"""Sign-ins on their way to a provider of identities and back: one short-lived cookie each, in the browser alone."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, dataclass

from starlette.requests import Request
from starlette.responses import Response

from publisher.people.provider import Attempt
from publisher.signing.keyring import Keyring
from publisher.signing.signer import Signer, same, unhex

#: seconds that somebody has to type a password and find a second factor
ATTEMPT_SECONDS = 900
PATH = "/login/oidc"


@dataclass(frozen=True)
class Begun:
    """An attempt, and the page that it was begun for."""

    attempt: Attempt
    next: str


class Attempts:
    """Writes and reads the cookies. The state is in the cookie's name: sign-ins in two tabs do not disturb each other.

    SameSite is lax, since the browser comes back from another site; what it comes back with is checked against it.
    """

    def __init__(self, secret: bytes | Keyring, *, secure: bool) -> None:
        self._signer, self._secure = Signer(secret, "dashboard oidc"), secure

    def keep(self, response: Response, begun: Begun) -> None:
        told = {"until": int(time.time()) + ATTEMPT_SECONDS, "next": begun.next, **asdict(begun.attempt)}
        text = urlsafe_b64encode(json.dumps(told).encode()).decode()
        response.set_cookie(
            _name(begun.attempt.state),
            f"{text}.{self._signer.sign(text).hex()}",
            max_age=ATTEMPT_SECONDS,
            path=PATH,
            httponly=True,
            samesite="lax",
            secure=self._secure,
        )

    def find(self, request: Request, state: str) -> Begun | None:
        """That with this state; None if this browser has begun none, or too long ago."""
        text, _, mac = request.cookies.get(_name(state), "").rpartition(".")
        if not text or not self._signer.is_genuine(text, unhex(mac)):
            return None
        told = json.loads(urlsafe_b64decode(text))
        # only the state's beginning is in the name
        if time.time() >= told["until"] or not same(state, told["state"]):
            return None
        return Begun(Attempt(told["state"], told["nonce"], told["verifier"]), told["next"])

    def forget(self, response: Response, state: str) -> None:
        response.delete_cookie(_name(state), path=PATH, httponly=True, samesite="lax", secure=self._secure)


def _name(state: str) -> str:
    beginning = "".join(letter for letter in state if letter.isascii() and (letter.isalnum() or letter in "-_"))[:16]
    return f"publisher_oidc_{beginning}"
