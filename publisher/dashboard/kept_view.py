"""What pruning left of each layer: counts from the manifest, and from the published masks which ones they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from publisher.api.service import Service
from publisher.architecture.masks_file import FILE_NAME, KeptUnits, read_kept_units
from publisher.architecture.structure import Unit
from publisher.dashboard.heat_map import HeatMap, draw_heat_map
from publisher.dashboard.published_files import content_of, is_here
from publisher.errors import PublisherError, RequestFault
from publisher.hub.reading import StoredContent
from publisher.manifest.manifest import Manifest, Widths
from publisher.manifest.reports import Publication

#: bytes of a masks file that are read for a page: of 70B parameters it has about 9 MB
MOST_BYTES = 2**25
#: of a model that somebody has: the largest have some hundred layers, and 53,248 neurons in each
_MOST_LAYERS, _MOST_UNITS = 2048, 2**20
#: stretches of a row: more than a screen's pixels allow look the same
_MOST_CELLS = 128
#: files whose maps are kept in memory, at some 100 KB
_FILES_REMEMBERED = 32

_WORDS = {Unit.KV_HEADS: "attention heads", Unit.NEURONS: "MLP neurons", Unit.EXPERTS: "experts"}


@dataclass(frozen=True)
class Kept:
    """Of one unit in one layer."""

    kept: int
    full: int

    @property
    def share(self) -> float:
        return self.kept / self.full if self.full else 1.0


@dataclass(frozen=True)
class KeptView:
    """`layers`: for each, what is left of `units`; None where it has none. `why_no_maps`: a sentence."""

    units: Sequence[str]
    layers: Sequence[Sequence[Kept | None]]
    maps: Sequence[HeatMap] = field(default=())
    why_no_maps: str | None = None

    @property
    def is_pruned(self) -> bool:
        """Whether some layer lost a whole unit."""
        return any(cell and cell.kept < cell.full for cells in self.layers for cell in cells)


def kept_view(service: Service, manifest: Manifest, publication: Publication | None) -> KeptView:
    """`publication`: whose masks say which; what is damaged or elsewhere is said to be."""
    counted = _counted(manifest)
    units = [unit for unit in Unit if any(each.get(unit) for each in counted)]
    layers = [[each.get(unit) for unit in units] for each in counted]
    view = KeptView([_WORDS[unit] for unit in units], layers)
    if publication is None or not view.is_pruned or FILE_NAME not in manifest.files:
        return view
    try:
        maps = _maps(service, publication)
    except PublisherError as fault:
        return KeptView(view.units, layers, why_no_maps=f"Which ones they are cannot be read: {fault.message}")
    if maps is None:
        return KeptView(view.units, layers, why_no_maps=_elsewhere(service, publication))
    return KeptView(view.units, layers, maps)


def _elsewhere(service: Service, publication: Publication) -> str:
    if is_here(service, publication):
        return f"Which ones they are stands in {FILE_NAME}, which is too large for a page."
    return f"Which ones they are stands in {FILE_NAME} at {publication.endpoint}, which this page does not ask."


def _counted(manifest: Manifest) -> list[dict[Unit, Kept]]:
    pairs = zip(manifest.base_widths, manifest.widths, strict=False)
    return [
        {unit: Kept(_count(left, unit), _count(base, unit)) for unit in Unit if _count(base, unit)}
        for base, left in pairs
    ]


def _count(widths: Widths, unit: Unit) -> int:
    return {Unit.KV_HEADS: widths.kv_heads, Unit.NEURONS: widths.neurons, Unit.EXPERTS: widths.experts}[unit]


def _maps(service: Service, publication: Publication) -> tuple[HeatMap, ...] | None:
    content = content_of(service, publication, FILE_NAME)
    if content is None or content.size > MOST_BYTES:
        return None
    return _drawn(content)


@lru_cache(maxsize=_FILES_REMEMBERED)
def _drawn(content: StoredContent) -> tuple[HeatMap, ...]:
    """Contents of one sha256 are equal, so that a commit's masks are read once, whoever looks."""
    whole = content.read()
    try:
        found = read_kept_units(len(whole), lambda start, end: whole[start:end])
    except (OverflowError, RecursionError) as error:
        raise RequestFault(f"{FILE_NAME} is not of this format: {error}.") from error
    if found is not None:
        _refuse_giants(found)
    return () if found is None else tuple(_map(found, unit) for unit in Unit if _lost(found, unit))


def _refuse_giants(found: KeptUnits) -> None:
    """A few bytes can say that a model has any number of layers and units, each of which would be looked at."""
    kinds = set(found.kind_of)
    if not all(0 <= kind < len(found.kinds) for kind in kinds) or len(found.kind_of) > _MOST_LAYERS:
        raise RequestFault(f"{FILE_NAME} has layers of no kind, or more than {_MOST_LAYERS}.")
    if any(count < 0 or count > _MOST_UNITS for kind in found.kinds for count in kind.units.values()):
        raise RequestFault(f"{FILE_NAME} has a layer of more than {_MOST_UNITS} units.")


def _lost(found: KeptUnits, unit: Unit) -> bool:
    return any(lost is unit for _, lost in found.kept)


def _map(found: KeptUnits, unit: Unit) -> HeatMap:
    layers = range(len(found.kind_of))
    longest = max(found.full(layer, unit) for layer in layers)
    cells = min(longest, _MOST_CELLS)
    rows = [_shares(found.indices(layer, unit), found.full(layer, unit), cells) for layer in layers]
    words = _WORDS[unit]
    x_title = f"{words.removesuffix('s')}, by its number in the base model"
    return draw_heat_map(f"Kept {words}", _said(found, unit), x_title, rows, longest)


def _shares(kept: Sequence[int], full: int, cells: int) -> list[float]:
    """Of each of `cells` stretches of a layer's indices, the share that stayed."""
    if not full:
        return []
    if len(kept) == full:
        return [1.0] * cells
    counts = [0] * cells
    for index in kept:
        counts[index * cells // full] += 1
    # stretch `cell` begins at the first index for which index * cells // full is it
    begins = [-(-cell * full // cells) for cell in range(cells + 1)]
    sizes = [end - begin for begin, end in pairwise(begins)]
    return [count / size if size else 0.0 for count, size in zip(counts, sizes, strict=True)]


def _said(found: KeptUnits, unit: Unit) -> str:
    """The map in words."""
    shares = {layer: len(kept) / found.full(layer, lost) for (layer, lost), kept in found.kept.items() if lost is unit}
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    return (
        f"{len(shares)} of {len(found.kind_of)} layers lost some: layer {least} most, with "
        f"{100 * shares[least]:.0f} % left, layer {most} least, with {100 * shares[most]:.0f} % left; a table below "
        "has every layer's number"
    )
