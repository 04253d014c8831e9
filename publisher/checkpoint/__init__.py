"""The published format. Importing this teaches transformers to load layers of different widths (loader) and weights
that are stored compressed (sparse_loading)."""

from publisher.checkpoint import loader, sparse_loading

loader.register()
sparse_loading.register()
