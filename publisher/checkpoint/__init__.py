"""The published format. Importing this teaches transformers to load layers of different widths and 4 bits everywhere
(publisher.loading) and weights that are stored compressed (sparse_loading), and PEFT to save with an adapter what it
was trained on (tying)."""

from importlib.util import find_spec

# where there is none, files are read and compared all the same
if find_spec("transformers") is not None:
    import publisher.loading  # noqa: F401 - first: says what is missing of an older transformers
    from publisher.checkpoint import sparse_loading, tying

    sparse_loading.register()
    tying.register()
