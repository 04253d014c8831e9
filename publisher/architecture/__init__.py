"""Shapes and counts of decoders, and what structured pruning takes out of them. Importing this loads no torch."""

from publisher.architecture.describe import describe
from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.widths import pruned_widths

__all__ = ["Geometry", "LayerWidths", "describe", "pruned_widths"]
