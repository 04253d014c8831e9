"""Pages in docs/ that are made from the code: `make docs` writes them, a test says when they are stale."""
