"""What users call points and heads, resolved: TransformerLens's names, kinds by layer, papers' short forms, paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pscrub.errors import GraphError, close
from pscrub.graph.cuts import Cut
from pscrub.graph.families import NAMES
from pscrub.graph.pieces import Piece
from pscrub.graph.points import GROUPED, Point, Sizes

_HEAD = re.compile(
    r"(?:[aA]?(?P<layer>\d+)\.(?P<group>g)?[hH]?|L(?P<upper>\d+)H)(?P<head>\d+)"
    r"(?:\.(?P<part>[qkvzQKVZ])|<(?P<angle>[qkvzQKVZ])>)?"
)
_BY_LAYER = re.compile(r"(?P<kind>[a-z_]+)\.(?P<layer>\d+)")
_MLP = re.compile(r"(?:m|mlp|MLP ?)(?P<layer>\d+)")
_BLOCK = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<rest>.+)")
_SHORT = {"mlp": "mlp_out", "attn": "attn_out", "pos": "pos_embed", "resid": "resid_pre"}
_RAW = {"attn_raw": "attn_out", "mlp_raw": "mlp_out"}
"""Before a norm that follows; the same where none does."""


@dataclass(frozen=True)
class Names:
    """The names of one model.

    Args:
        points: canonical name -> point.
        sizes: of the model.
        cuts: what else can be cut, and its shape.
    """

    points: Mapping[str, Point]
    sizes: Sizes
    cuts: Mapping[Cut, tuple[int, ...]]

    def piece(self, name: str) -> Piece:
        """What a name is: a node, and which entries of its last axis. The piece's own name is the canonical one.

        Raises:
            GraphError: no such point, layer or head, or a key head that is named as a query head.
        """
        head = _HEAD.fullmatch(name)
        if head:
            return self._head(name, head)
        point = self.point(name)
        return Piece(point.name, point.node, point.entries)

    def point(self, name: str) -> Point:
        """The point of a name that is no head's.

        Raises:
            GraphError: no such point or layer.
        """
        if name in self.points:
            return self.points[name]
        kind, layer = self._kind(name)
        if kind in NAMES:
            return self._of_kind(name, kind, layer)
        if found := self._of_path(name):
            return found
        paths = [cut.path if cut.side == "output" else str(cut) for cut in self.cuts]
        heads = ["0.0", "0.0.q", "L0H0"] if self.sizes.heads else []
        by_layer = [f"{each.kind}.{each.layer}" for each in self.points.values() if each.layer is not None]
        known = dict.fromkeys([*self.points, *by_layer, *heads, *paths])
        raise GraphError(f"the model has no point '{name}'{close(name, known)}")

    def _kind(self, name: str) -> tuple[str, int | None]:
        """Kind and layer that a name says; ("", None) where it says none."""
        if found := _MLP.fullmatch(name):
            return "mlp_out", int(found["layer"])
        if found := _BLOCK.fullmatch(name):
            kinds = {pattern.removeprefix("blocks.{i}."): kind for kind, pattern in NAMES.items()}
            return kinds.get(found["rest"], ""), int(found["layer"])
        if found := _BY_LAYER.fullmatch(name):
            return _SHORT.get(found["kind"], found["kind"]), int(found["layer"])
        outside = {pattern: kind for kind, pattern in NAMES.items() if "{i}" not in pattern}
        kind = outside.get(name, _SHORT.get(name, name))
        return (kind, None) if "{i}" not in NAMES.get(kind, "{i}") else ("", None)

    def _of_kind(self, name: str, kind: str, layer: int | None) -> Point:
        if layer is not None and layer >= self.sizes.layers:
            raise GraphError(self._no_layer(name, layer))
        if kind == "resid_pre" and layer:
            kind, layer = "resid_post", layer - 1
        wanted = NAMES[kind].format(i=layer)
        if wanted not in self.points and kind in _RAW:
            wanted = NAMES[_RAW[kind]].format(i=layer)
        if wanted not in self.points:
            of_layer = dict.fromkeys(each.kind for each in self.points.values() if each.layer == layer)
            why = "; attention and MLP read one and the same stream" if kind == "resid_mid" else ""
            raise GraphError(f"'{name}': the model has no such point{why}; known there: {', '.join(of_layer)}")
        return self.points[wanted]

    def _of_path(self, name: str) -> Point | None:
        """The point at a module's path, which is a node of its own if it has no other name."""
        for cut, shape in self.cuts.items():
            if name == str(cut) or (name == cut.path and cut.side == "output"):
                same = (each for each in self.points.values() if each.cut == cut and each.name == each.node)
                return next(same, Point(name, "", None, str(cut), cut, shape))
        return None

    def _head(self, name: str, said: re.Match[str]) -> Piece:
        layer, number = int(said["layer"] or said["upper"]), int(said["head"])
        part = (said["part"] or said["angle"] or "z").lower()
        sizes, own = self.sizes, NAMES[part].format(i=layer)
        if layer >= sizes.layers:
            raise GraphError(self._no_layer(name, layer))
        if own not in self.points or not self.points[own].heads:
            more = f"; known: {', '.join(self.points)}" if own not in self.points else "; give heads=... in its Family"
            raise GraphError(f"'{name}': where heads of {own} are is not known{more}")
        grouped, in_group = part in GROUPED, said["group"] is not None
        many = sizes.key_heads if in_group else sizes.heads
        if number >= many:
            word = "groups" if in_group else "heads"
            raise GraphError(f"'{name}': layer {layer} has {many} {word}, 0 to {many - 1}")
        if in_group and not grouped:
            first = number * sizes.group
            theirs = f"{first} to {first + sizes.group - 1}" if sizes.group > 1 else str(first)
            raise GraphError(
                f"'{name}': a group has one .k and one .v; query heads are {theirs}: say '{layer}.{first}'"
            )
        if grouped and not in_group and sizes.group > 1:
            group = number // sizes.group
            first = group * sizes.group
            raise GraphError(
                f"'{name}': query head {number} has no {part} of its own: layer {layer} has {sizes.key_heads} heads of "
                f"keys and values for {sizes.heads} query heads, and group {group} serves query heads {first} to "
                f"{first + sizes.group - 1}: say '{layer}.g{group}.{part}'"
            )
        point = self.points[own]
        group_mark = "g" if grouped and sizes.group > 1 else ""
        short = f"{layer}.{group_mark}{number}" + f".{part}" * (part != "z")
        return Piece(short, point.node, point.head(number))

    def _no_layer(self, name: str, layer: int) -> str:
        return f"'{name}': the model has no layer {layer}; its {self.sizes.layers} are 0 to {self.sizes.layers - 1}"
