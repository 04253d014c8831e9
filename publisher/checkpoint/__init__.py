"""The published format. Importing this teaches transformers to load layers of different widths (see loader)."""

from publisher.checkpoint.loader import register

register()
