"""A tenant's own Hub: where its variants are published, in the place of the service's.

The tokens are tried at the Hub while the request holds them, and lie sealed from then on. Jobs that wait for a
credential go on at once.
"""

from __future__ import annotations

from fastapi import APIRouter, status
from huggingface_hub import HfApi
from sqlalchemy.exc import IntegrityError
from starlette.concurrency import run_in_threadpool

from publisher.api.authentication import Caller, CurrentCaller
from publisher.api.errors import documented
from publisher.api.hub_credentials_schema import HubCredentialAnswer, HubCredentialRequest
from publisher.api.outside import CurrentOutside
from publisher.api.service import CurrentService, Service
from publisher.errors import CredentialFault, NotFound, RequestFault
from publisher.hub_client.deadline import answers_within
from publisher.hub_client.faults import Asked, hub_faults
from publisher.hub_client.guard import PrivateAddress, public_only
from publisher.jobs.service import wake_for_credential
from publisher.settings import Settings
from publisher.store import hub_credentials

router = APIRouter(prefix="/v1/hub-credentials", tags=["hub credentials"])

#: jobs that are sent to workers at once; the reaper sends the others within seconds
_SENT_AT_ONCE = 50


@router.put("", responses=documented(401, 403, 422, 429, 503))
async def put_hub_credential(
    request: HubCredentialRequest, service: CurrentService, caller: CurrentCaller, outside: CurrentOutside
) -> HubCredentialAnswer:
    """Publish to a Hub of your own from now on, in the place of the service's.

    The Hub is asked whose token it is; one that it does not know, or that only reads, is refused. Tokens lie encrypted
    and are never answered. Jobs that wait for a credential go on.
    """
    _refuse_own(request.endpoint, service.settings)
    await outside.calls.run(
        caller.tenant_id, f"the Hub {request.endpoint}", lambda: check_token(request, service.settings)
    )
    return await run_in_threadpool(_save, service, caller, request)


@router.get("", responses=documented(401, 404))
def get_hub_credential(service: CurrentService, caller: CurrentCaller) -> HubCredentialAnswer:
    """Get the Hub of your own, without its tokens."""
    with service.database.read() as session:
        row = hub_credentials.find(session, caller.tenant_id)
        if row is None:
            raise _none()
        return HubCredentialAnswer.model_validate(row)


@router.delete("", status_code=status.HTTP_204_NO_CONTENT, responses=documented(401, 403, 404))
def delete_hub_credential(service: CurrentService, caller: CurrentCaller) -> None:
    """Forget the Hub of your own and its tokens: jobs publish to the service's again.

    What was published stays where it is. A job whose commit is under way waits for the token to come back.
    """
    with service.database.write() as session:
        if not hub_credentials.delete(session, caller.tenant_id):
            raise _none()


def check_token(request: HubCredentialRequest, settings: Settings) -> None:
    """Ask the Hub whose write token it is. RequestFault if it is not one, or the Hub none, or at a private address."""
    api = HfApi(endpoint=request.endpoint, token=request.write_token.get_secret_value(), library_name="loram-publisher")
    asked = Asked("the token", request.endpoint, "write_token", kind="the account of", field="endpoint")
    try:
        with (
            public_only(unless=settings.allow_private_addresses),
            answers_within(settings.outside_seconds),
            hub_faults(asked),
        ):
            account = api.whoami()
    except PrivateAddress as error:
        raise RequestFault(error.message, field="endpoint", way_out=error.way_out) from None
    except CredentialFault as error:
        raise RequestFault(error.message, field="write_token", way_out="Send a token of this Hub's.") from None
    except ValueError:
        raise RequestFault(
            f"{request.endpoint} answers, and not as a Hub does.", field="endpoint", way_out="Check the address."
        ) from None
    if _role(account) == "read":
        raise RequestFault(
            "this token may only read.", field="write_token", way_out="Make one that writes, at the Hub."
        )


def _role(account: object) -> object:
    """What a Hub says that its token may do; None where it does not say."""
    for name in ("auth", "accessToken", "role"):
        account = account.get(name) if isinstance(account, dict) else None
    return account


def _refuse_own(endpoint: str, settings: Settings) -> None:
    if settings.is_embedded_hub(endpoint):
        raise RequestFault(
            f"{endpoint} is this service's own Hub: jobs publish there without a token of yours.",
            field="endpoint",
            way_out="DELETE /v1/hub-credentials to publish there.",
        )


def _save(service: Service, caller: Caller, request: HubCredentialRequest) -> HubCredentialAnswer:
    try:
        answer, waiting = _save_once(service, caller, request)
    except IntegrityError:  # PostgreSQL lets two transactions look before either writes
        answer, waiting = _save_once(service, caller, request)
    for job_id in waiting[:_SENT_AT_ONCE]:
        service.dispatcher.send(job_id)
    return answer


def _save_once(
    service: Service, caller: Caller, request: HubCredentialRequest
) -> tuple[HubCredentialAnswer, list[str]]:
    """The answer, and the jobs that have waited for it."""
    keyring = service.settings.sealing_secrets()
    with service.database.write() as session:
        row = hub_credentials.put(
            session,
            keyring,
            caller.tenant_id,
            request.endpoint,
            write_token=request.write_token,
            read_token=request.read_token,
            set_by=caller.key_id,
        )
        return HubCredentialAnswer.model_validate(row), wake_for_credential(session, caller.tenant_id)


def _none() -> NotFound:
    return NotFound(
        "there is no Hub of your own: variants are published to the service's.", way_out=hub_credentials.PUT
    )
