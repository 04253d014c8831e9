"""What is not installed with the package alone: which extra brings it, by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from publisher.errors import InfrastructureFault

#: extra of pyproject.toml → the modules of what it asks for
EXTRAS: Mapping[str, frozenset[str]] = {
    "train": frozenset({"transformers", "peft", "bitsandbytes", "accelerate", "trl", "datasets", "matplotlib"}),
    "service": frozenset(
        {
            *("fastapi", "uvicorn", "sqlalchemy", "alembic", "psycopg", "celery", "redis", "pydantic_settings"),
            *("jinja2", "python_multipart", "pyarrow", "datasets", "matplotlib", "galore_torch"),
            *("prometheus_client", "cryptography", "authlib", "joserfc", "standardwebhooks", "httpx_secure"),
            *("structlog", "opentelemetry"),
        }
    ),
    "demo": frozenset({"gguf"}),
    "sign": frozenset({"model_signing", "OpenSSL"}),
}


class MissingExtra(InfrastructureFault):
    """A part of the package is used whose libraries are not installed."""

    def __init__(self, extra: str, modules: list[str]) -> None:
        super().__init__(
            f"{', '.join(modules)}: not installed here.", way_out=f"Run `pip install 'loram-publisher[{extra}]'`."
        )


def require(extra: str) -> None:
    """Raises MissingExtra that names all that is missing, before a process starts that would."""
    if missing := [module for module in sorted(EXTRAS[extra]) if find_spec(module) is None]:
        raise MissingExtra(extra, missing)


def missing_of(error: ModuleNotFoundError) -> MissingExtra | None:
    """What an import that failed lacks; None: nothing that an extra brings."""
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
    return None if extra is None else MissingExtra(extra, [module])
