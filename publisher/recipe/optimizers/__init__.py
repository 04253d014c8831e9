"""Optimizers of alignment, one file each; `spec` says what a file declares, `register` finds them.

A new one is a word of `spec.Optimizer` and the file of that name, if torch or a package has it. One that is written
here is a module of worker/alignment/optimizers besides.
"""
