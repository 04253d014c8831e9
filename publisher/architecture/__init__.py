"""Shapes and counts of decoders, and what structured pruning takes out of them. Importing this loads no torch."""

from publisher.architecture.geometry import Geometry, LayerWidths, pruned_widths

__all__ = ["Geometry", "LayerWidths", "pruned_widths"]
