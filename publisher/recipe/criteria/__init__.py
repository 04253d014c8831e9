"""Pruning criteria, one file each; `spec` says what a file declares, `register` finds them.

A new one is a word of `spec.Criterion` and the file of that name. What its file names to be run may be in the file
itself, as long as that imports no torch: what it is handed brings all it needs (worker.pruning.scoring.ScoringWork,
worker.pruning.unstructured.sparsity). Mathematics that needs more is a module of worker/pruning.
"""
