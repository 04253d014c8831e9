"""The published format. Importing this teaches transformers to load layers of different widths (loader) and weights
that are stored compressed (sparse_loading) or, embeddings included, in 4 bits (four_bit_everywhere), and PEFT to save
with an adapter what it was trained on (tying)."""

from publisher.checkpoint.transformers_features import refuse_older_transformers

refuse_older_transformers()

from publisher.checkpoint import four_bit_everywhere, loader, sparse_loading, tying  # noqa: E402

loader.register()
sparse_loading.register()
four_bit_everywhere.register()
tying.register()
