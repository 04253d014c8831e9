"""Whether the installed transformers can be taught what checkpoints need; asked before anything of it is imported."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

#: configs that say what differs per layer
_NEEDED = "transformers.integrations.heterogeneity"


def refuse_older_transformers() -> None:
    """Raises ImportError with the way out, where imports would fail by names inside transformers."""
    if find_spec(_NEEDED) is None:
        raise ImportError(
            "publisher.checkpoint needs a transformers whose configs can differ per layer; "
            f"{version('transformers')} is installed. Run "
            "`pip install 'transformers~=5.23.0'`."
        )
