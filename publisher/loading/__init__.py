"""What transformers is taught, so that it loads what is published: layers of different widths, and 4 bits everywhere.

Importing this package does it; publisher.checkpoint does it for users.
"""

from publisher.loading.transformers_features import refuse_unsupported_transformers

refuse_unsupported_transformers()

from publisher.loading import four_bit_everywhere, loader  # noqa: E402

loader.register()
four_bit_everywhere.register()
