"""Pruning criteria, one file each; `spec` says what a file declares, `register` finds them."""
