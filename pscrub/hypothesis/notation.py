"""A circuit as text: lines of readers and sources, read into references with every fault and its line.

name movers = 9.9 10.0 9.6        # a group
logits@END <- movers@END          # reader <- sources
9.9.q@END  <- 7.3@END 8.6@END
7.3.v@S2   <= 5.5@S2              # along every path, not the edge alone
0.1@S2 -> 7.3.v@S2                # source -> reader, and so on: a -> b -> c
8.6.v@S2   <- 0.1@S2(token)       # what this reader alone needs the source to agree on
movers@END : io                   # what is claimed there, by a name of one word or several
9.9.q@END  : io rest=exact        # and what becomes of what no line says it reads
loss <- label logits              # f itself, by its name, and columns that it reads
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pscrub.errors import HypothesisError

EVERY = "*"
"""The place that is each position in turn."""
_REF = re.compile(
    r"(?P<name>(?:input|output|estimate)_of\([^()]*\)|[^\s@\[\]()]+)(?:\[(?P<within>[^\[\]]+)\])?(?:@(?P<spot>[^\s@\[\]()]+))?"
    r"(?:\((?P<feature>[^\s()]+)\))?"
)
_SPOT = re.compile(r"(?P<base>\*|[A-Za-z_][A-Za-z_0-9]*|)(?P<offset>[+-]?\d+|)")
_PART = re.compile(r"(?P<group>[^.<>]+)(?P<part>\.[qkvzQKVZ]|<[qkvzQKVZ]>)?")
_FORMS = "'reader <- sources', 'reader <= sources', 'source -> reader', 'name group = members' or 'places : feature'"


@dataclass(frozen=True)
class Spot:
    """Where along the positions.

    Args:
        base: a name (an alias, or a column), "*" for each position in turn, or "" for a fixed one.
        offset: added to it; the position itself if it is fixed, from the end if negative.
    """

    base: str = ""
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.base}{self.offset:+}" if self.base and self.offset else self.base or str(self.offset)


@dataclass(frozen=True)
class Ref:
    """What a word of the text refers to.

    Args:
        name: of a head or a point.
        within: entries or directions of its last axis, as written; "" for all.
        spot: where; None for all positions as one value.
        feature: what a source must agree on for this reader; "" for what it must for all.
        line: of the text, from 1.
    """

    name: str
    within: str = ""
    spot: Spot | None = None
    feature: str = ""
    line: int = field(default=0, compare=False)

    def __str__(self) -> str:
        within = f"[{self.within}]" if self.within else ""
        feature = f"({self.feature})" if self.feature else ""
        return f"{self.name}{within}" + (f"@{self.spot}" if self.spot is not None else "") + feature


@dataclass(frozen=True)
class Saying:
    """What a line claims of some places: the name of a feature, and their rest; "" for what it does not say."""

    at: Ref
    feature: str
    rest: str


@dataclass(frozen=True)
class Script:
    """A circuit's lines.

    Args:
        edges: (reader, source) in the order said.
        sayings: what is claimed where.
        followed: readers whose sources are read along every path ("<="), not by the edge alone.
    """

    edges: tuple[tuple[Ref, Ref], ...]
    sayings: tuple[Saying, ...]
    followed: frozenset[Ref] = frozenset()


def read_script(text: str | Mapping[str, Sequence[str]]) -> Script:
    """The lines of a circuit.

    Args:
        text: the lines; or reader -> sources, which is the same as lines with "<-".

    Raises:
        HypothesisError: with every line that cannot be read, by its number.

    >>> script = read_script("name m = 9.9 9.6 # movers \\n logits@END <- m@END \\n 0.1 -> 9.9.q@END")
    >>> [f"{reader} <- {source}" for reader, source in script.edges]
    ['logits@END <- 9.9@END', 'logits@END <- 9.6@END', '9.9.q@END <- 0.1']
    >>> read_script("9.9.q@END <-")
    Traceback (most recent call last):
    pscrub.errors.HypothesisError: line 1, '9.9.q@END <-': nothing stands after '<-'; expected 'reader <- sources'
    """
    if not isinstance(text, str):
        text = "\n".join(f"{reader} <- {' '.join(sources)}" for reader, sources in text.items())
    lines = [(number, line.split("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1)]
    reader = _Reader()
    for number, line in lines:
        if line.startswith("name ") and "=" in line:
            reader.name(number, line)
    for number, line in lines:
        if line and not (line.startswith("name ") and "=" in line):
            reader.read(number, line)
    reader.find_mixed()
    if not reader.edges and not reader.sayings and not reader.faults:
        reader.faults.append(f"the text says nothing; expected lines of {_FORMS}")
    if reader.faults:
        raise HypothesisError(reader.faults)
    return Script(tuple(dict.fromkeys(reader.edges)), tuple(reader.sayings), frozenset(reader.followed))


def read_ref(word: str, line: int = 0) -> Ref:
    """One word: a name, entries in brackets, a place after "@", a feature in parentheses.

    Raises:
        HypothesisError: it has another form.

    >>> read_ref("mlp_post.5[3,7]@S1+1")
    Ref(name='mlp_post.5', within='3,7', spot=Spot(base='S1', offset=1), feature='', line=0)
    """
    found = _REF.fullmatch(word)
    if not found:
        raise HypothesisError(f"'{word}' is no place; expected a name, '[entries]' if not all, '@position' if not all")
    return Ref(found["name"], found["within"] or "", _read_spot(found["spot"], word), found["feature"] or "", line)


def _read_spot(text: str | None, word: str) -> Spot | None:
    if text is None:
        return None
    found = _SPOT.fullmatch(text)
    if not found or not text:
        raise HypothesisError(
            f"'{word}': '{text}' is no position; expected a number, a name with an offset as 'S1+1', or '*'"
        )
    return Spot(found["base"], int(found["offset"] or 0))


class _Reader:
    """Lines as they are read, and the faults so far."""

    def __init__(self) -> None:
        self.groups: dict[str, list[Ref]] = {}
        self.edges: list[tuple[Ref, Ref]] = []
        self.followed: dict[Ref, int] = {}
        self.by_edge: dict[Ref, int] = {}
        self.sayings: list[Saying] = []
        self.faults: list[str] = []

    def name(self, number: int, line: str) -> None:
        """A group: what its name stands for in other lines, and in later groups."""
        name, members = (each.strip() for each in line.removeprefix("name ").split("=", 1))
        said = f"line {number}, '{line}'"
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            self.faults.append(f"{said}: '{name}' cannot name a group; expected letters, digits and '_'")
        elif name in self.groups:
            self.faults.append(f"{said}: '{name}' names a group already")
        else:
            self.groups[name] = [*self._refs(members, number, said, "after '='", "'name group = members'")]

    def read(self, number: int, line: str) -> None:
        """Any other line."""
        said = f"line {number}, '{line}'"
        forward, back = line.split("->"), re.split("<[-=]", line)
        if len(forward) + len(back) > 2 and " : " in f"{line} ":
            self.faults.append(f"{said}: has an arrow and ':'; say features on lines of their own, 'places : feature'")
        elif len(forward) > 1 and len(back) > 1:
            self.faults.append(f"{said}: has both '<-' and '->'; write it as two lines")
        elif len(back) == 2:
            arrow = "<=" if "<=" in line else "<-"
            self._edges(number, said, [back[1], back[0]], ("before", "after"), arrow)
        elif len(back) > 2:
            self.faults.append(
                f"{said}: has {len(back) - 1} arrows to the left; expected 'reader <- sources', one reader a line"
            )
        elif len(forward) > 1:
            self._edges(number, said, forward, ("after", "before"), "->")
        elif " : " in f"{line} ":
            self._say(number, line, said)
        else:
            self.faults.append(f"{said}: expected {_FORMS}")

    def find_mixed(self) -> None:
        """Faults of readers that read some sources by the edge and others along every path."""
        for ref, line in self.followed.items():
            if ref in self.by_edge:
                self.faults.append(
                    f"line {line}, '{ref}': reads along every path ('<='), and by the edge alone in line "
                    f"{self.by_edge[ref]} ('<-', '->'); one reader does one or the other"
                )

    def _edges(self, number: int, said: str, sides: Sequence[str], where: tuple[str, str], arrow: str) -> None:
        form = "'source -> reader'" if arrow == "->" else f"'reader {arrow} sources'"
        read = []
        for k, side in enumerate(sides):
            at = where[0] if k else where[1]
            read.append([*self._refs(side, number, said, f"{at} '{arrow}'", form)])
        for sources, readers in itertools.pairwise(read):
            self.edges += [(reader, source) for reader in readers for source in sources]
            self.faults += [
                f"{said}: '{ref}' is read with a feature of its own, and reads others; say 'places : feature' for it"
                for ref in readers
                if ref.feature
            ]
            (self.followed if arrow == "<=" else self.by_edge).update(dict.fromkeys(readers, number))

    def _say(self, number: int, line: str, said: str) -> None:
        places, _, after = f"{line} ".partition(" : ")
        words = after.split()
        rest = "".join(word.removeprefix("rest=") for word in words if word.startswith("rest="))
        feature = " ".join(word for word in words if not word.startswith("rest="))
        if rest not in ("", "exact", "unimportant"):
            self.faults.append(f"{said}: rest={rest}; expected rest=exact or rest=unimportant")
        if not feature and not rest:
            self.faults.append(f"{said}: names no feature after ':'")
        refs = [*self._refs(places, number, said, "before ':'", "'places : feature'")]
        self.faults += [f"{said}: '{ref}' names a feature already" for ref in refs if ref.feature]
        self.sayings += [Saying(ref, feature, rest) for ref in refs]

    def _refs(self, text: str, number: int, said: str, where: str, form: str) -> Iterator[Ref]:
        """The references of some words, groups written out."""
        words = text.replace(", ", " ").split()
        if not words:
            self.faults.append(f"{said}: nothing stands {where}; expected {form}")
        for word in words:
            try:
                ref = read_ref(word, number)
                yield from self._write_out(ref)
            except HypothesisError as error:
                self.faults += [f"{said}: {fault}" for fault in error.faults]

    def _write_out(self, ref: Ref) -> Iterable[Ref]:
        found = _PART.fullmatch(ref.name)
        if not found or found["group"] not in self.groups:
            return [ref]
        members = []
        for member in self.groups[found["group"]]:
            if member.feature or (ref.spot and member.spot) or (ref.within and member.within):
                raise HypothesisError(f"'{ref}': the group's member '{member}' says already where; say it once")
            name, spot = member.name + (found["part"] or ""), ref.spot or member.spot
            within = ref.within or member.within
            members.append(replace(member, name=name, within=within, spot=spot, feature=ref.feature, line=ref.line))
        return members
