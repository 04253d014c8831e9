"""Shapes and counts of decoders, and what structured pruning takes out of them. Importing this loads no torch."""

from publisher.architecture.describe import describe
from publisher.architecture.geometry import Geometry, LayerWidths

__all__ = ["Geometry", "LayerWidths", "describe"]
