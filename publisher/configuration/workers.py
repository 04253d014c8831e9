"""What a worker computes on, and which jobs it takes."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, Field, SecretStr, field_validator

from publisher.configuration.empty import none_if_empty
from publisher.errors import RequestFault

#: publisher.plan.queues: of jobs without anything that a GPU would do faster, and of jobs by the GiB that hold them
NO_GPU_QUEUE = "cpu"
QUEUE_SIZES = tuple(2**power for power in range(13))

_SEVERAL = re.compile(r"cpu(,cpu)+|cuda:\d+(,cuda:\d+)+")


def device_names(text: str) -> tuple[str, ...]:
    """Those of `cuda:0,cuda:1`, none of an empty text. Raises ValueError if they cannot align together.

    `cpu,cpu` are two processes, which gains nothing but a trial of what several GPUs do.
    """
    names = tuple(text.split(",")) if text else ()
    if names and (not _SEVERAL.fullmatch(text) or (names[0] != "cpu" and len(set(names)) < len(names))):
        raise ValueError(f"{text!r} is neither two or more different GPUs (cuda:0,cuda:1) nor cpu,cpu")
    return names


def queue_names(text: str) -> tuple[str, ...]:
    """Those of `cpu,16,32`, none of an empty text: publisher.plan.queues. Raises ValueError for another name."""
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    for name in names:
        if name not in {NO_GPU_QUEUE, *map(str, QUEUE_SIZES)}:  # 08 would be a queue that nobody sends to
            known = f"{NO_GPU_QUEUE}, {QUEUE_SIZES[0]}, {QUEUE_SIZES[1]}, {QUEUE_SIZES[2]}, … {QUEUE_SIZES[-1]}"
            raise ValueError(f"{name!r} is no queue; there are {known} (GiB that its jobs need)")
    return names


class WorkerSettings(BaseModel):
    """Workers"""

    lm_eval_tasks: Path | None = Field(
        default=None, description="folder of lm-evaluation-harness tasks of one's own; they may run Python on workers"
    )
    worker_device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="where a worker computes; auto: cuda where it is present",
    )
    worker_devices: str = Field(
        default="", description="devices that align together, as in cuda:0,cuda:1; empty: worker_device alone"
    )
    worker_queues: str = Field(
        default="",
        description="queues whose jobs a worker takes, as in cpu,8,16: without GPU work, or by the GiB that they need; "
        "empty: all that it holds",
    )

    signing_key: SecretStr | None = Field(
        default=None,
        description="private key of an elliptic curve, as PEM, that workers sign what they publish with "
        "([verify.md](verify.md)); empty: nothing is signed",
    )

    _not_set_either = field_validator("signing_key", mode="before")(none_if_empty)

    @field_validator("signing_key")
    @classmethod
    def _key_that_signs(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            from publisher.configuration.signing_key import ModelKey

            try:
                ModelKey.read(key.get_secret_value(), "it")
            except RequestFault as fault:
                raise ValueError(str(fault)) from None
        return key

    @field_validator("worker_devices")
    @classmethod
    def _devices_that_can_work_together(cls, names: str) -> str:
        device_names(names)
        return names

    @field_validator("worker_queues")
    @classmethod
    def _queues_that_there_are(cls, names: str) -> str:
        queue_names(names)
        return names
