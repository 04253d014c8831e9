"""Aligning one model on several devices, one process each, its weights in parts (FSDP)."""
