"""Points of a language model: named values, what node each is of, and which entries of it belong to which head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pscrub.errors import TraceError
from pscrub.graph.cuts import Cut
from pscrub.graph.families import NAMES, Family

GROUPED = ("k", "v")
HEADED = ("q", "k", "v", "z")


@dataclass(frozen=True)
class Point:
    """A value of the model under the name that researchers have for it.

    Args:
        name: canonical, TransformerLens's.
        kind: of `NAMES`, or "logits".
        layer: its number; None outside of blocks.
        node: the node that it is, or is a part of.
        cut: where the node's value is in the user's module.
        shape: without the batch.
        heads: how many heads the last axis holds one after another; 0 where it holds none.
        entries: which of the node's last axis it is, in its own order; None for all.
    """

    name: str
    kind: str
    layer: int | None
    node: str
    cut: Cut
    shape: tuple[int, ...]
    heads: int = 0
    entries: tuple[int, ...] | None = field(default=None, repr=False)

    @property
    def axes(self) -> tuple[str, ...]:
        """What each axis of the shape counts."""
        last = (
            f"head*{self.width}"
            if self.heads
            else {"mlp_pre": "neuron", "mlp_pre_linear": "neuron"}.get(
                self.kind, "neuron" if self.kind == "mlp_post" else "vocabulary" if self.kind == "logits" else "width"
            )
        )
        return ("position", last)[-len(self.shape) :]

    @property
    def width(self) -> int:
        """Of a head, or of the value."""
        return self.shape[-1] // max(1, self.heads)

    def head(self, number: int) -> tuple[int, ...]:
        """Which entries of the node's last axis are a head's."""
        own = range(number * self.width, (number + 1) * self.width)
        return tuple(own) if self.entries is None else tuple(self.entries[each] for each in own)


@dataclass(frozen=True)
class Sizes:
    """How many layers, query heads of a layer, and key heads there are.

    Args:
        layers: blocks.
        heads: query heads; 0 where not known.
        key_heads: heads of keys and values.
    """

    layers: int
    heads: int
    key_heads: int

    @property
    def group(self) -> int:
        """How many query heads read one key head."""
        return self.heads // max(1, self.key_heads)


def name_points(family: Family, sizes: Sizes, found: Mapping[Cut, tuple[int, ...]]) -> dict[str, Point]:
    """Canonical name -> point, in the order of a forward.

    Args:
        family: where the values are.
        sizes: of the model.
        found: the cuts that can be made in it, and their shapes.

    Raises:
        TraceError: the table names what the model does not have, or heads that are not as wide as they are told to be.
    """
    at: dict[tuple[str, str], tuple[Cut, tuple[int, ...]]] = {}
    for cut, shape in found.items():
        at.setdefault((cut.path, cut.side), (cut, shape))
    points: dict[str, Point] = {}
    faults = []
    for layer in range(-1, sizes.layers):
        for kind, pattern in NAMES.items():
            wanted = family.cut(kind, layer)
            outside = "{i}" not in pattern
            if wanted is None or outside != (layer < 0) or (kind == "resid_pre" and layer > 0):
                continue
            own = found.get(wanted) if wanted.index is not None or wanted.call is not None else None
            first = at.get((wanted.path, wanted.side)) if own is None else None
            value, size = first or (wanted, own)
            name = pattern.format(i=layer)
            if size is None and kind == "pos_embed":  # of no column: the same in every row, like the embedding's
                size = points["hook_embed"].shape if "hook_embed" in points else None
            if size is None:
                faults.append(f"{name}: {wanted} is no value that the result depends on, or has no row for each input")
                continue
            point = Point(name, kind, None if outside else layer, name, value, size, sizes.heads * (kind == "z"))
            for each in _parts(point, family, sizes):
                points[each.name] = each
                if each.heads and each.shape[-1] % each.heads:
                    faults.append(f"{each.name} is {each.shape[-1]} wide, which is not {each.heads} heads of one width")
    if faults:
        raise TraceError(faults)
    return points


def _parts(point: Point, family: Family, sizes: Sizes) -> list[Point]:
    """The point itself and, of a fused projection, its q, k and v."""
    if point.kind in ("q", *GROUPED):
        heads = sizes.heads if point.kind == "q" else sizes.key_heads
        return [Point(point.name, point.kind, point.layer, point.node, point.cut, point.shape, heads)]
    if point.kind != "qkv":
        return [point]
    many = {"q": sizes.heads, "k": sizes.key_heads, "v": sizes.key_heads}
    all_heads = sum(many.values())
    if not sizes.heads or point.shape[-1] % all_heads or (family.fused == "heads" and sizes.heads != sizes.key_heads):
        raise TraceError(
            f"{point.name} is {point.shape[-1]} wide, which is not {sizes.heads} query heads and twice "
            f"{sizes.key_heads} key heads of one width"
        )
    width, found = point.shape[-1] // all_heads, [point]
    for place, (kind, heads) in enumerate(many.items()):
        first = sum(list(many.values())[:place]) * width
        starts = [
            (3 * head + place) * width if family.fused == "heads" else first + head * width for head in range(heads)
        ]
        entries = tuple(start + each for start in starts for each in range(width))
        name, shape = NAMES[kind].format(i=point.layer), (*point.shape[:-1], len(entries))
        found.append(Point(name, kind, point.layer, point.node, point.cut, shape, heads, entries))
    return found
