"""Which inputs of the behaviour f are labels: told from the graph that was begun with, whatever was made of it since.

The randomised loss pairs the model's outputs on one row with the labels of another. That is a question about f as it
was first written, its node reading outputs and labels. Rewriting a graph to give it the nodes that a hypothesis speaks
of may inline an output, copy a label, look f up in a table; f is the same on D, and so are its labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pscrub.errors import StudyError, close
from pscrub.graph.graph import Graph
from pscrub.graph.judging import Loss
from pscrub.graph.places import only_moves

ADVICE = "name the labels (Study(..., labels=...), scrub(..., labels=...), --label), or give the baseline's value"


@dataclass(frozen=True)
class Labels:
    """What f is made of in the graph that was begun with.

    Args:
        columns: the columns that are labels.
        reads: what f's node reads of them: the columns themselves, or nodes that are made of them alone.
        outputs: what else it reads, nodes or columns: the model's outputs.
    """

    columns: tuple[str, ...]
    reads: tuple[str, ...]
    outputs: tuple[str, ...]


def tell_labels(graph: Graph, given: str | Sequence[str] | None = None) -> Labels:
    """Which columns are labels, and where f's node reads them, in the graph that this one was rewritten from.

    Untold, the label is the column that f's node reads itself. Two columns that it reads itself may be two labels, or
    one of them an input that was written into f; and a column that the model reads too may be either, unless there is
    no other (tokens, which a language model reads and is judged by). Then the labels are asked for.

    Args:
        graph: the graph, or any rewrite of it.
        given: the columns that are labels, where that is known.

    Raises:
        StudyError: the labels cannot be told, or those given are not such that f's node reads them apart from outputs.

    >>> import torch
    >>> from pscrub.graph.rewrites import inline
    >>> graph = Graph.of({"out": lambda x: 2 * x, "f": lambda out, y: (out - y) ** 2}, ["x", "y"], "f")
    >>> tell_labels(graph) == tell_labels(inline(graph, "out"))
    True
    >>> tell_labels(graph).columns, tell_labels(graph).outputs
    (('y',), ('out',))
    """
    graph = graph.original
    of_f = graph.nodes[graph.output]
    if given is None and isinstance(of_f, Loss):
        given = of_f.labels
    reads = tuple(dict.fromkeys(graph.reads(graph.output)))
    behind = {name: _columns(graph, name) for name in reads}
    columns = _guess(graph, reads, behind) if given is None else name_labels(given)
    faults, chosen = list[str](), dict.fromkeys(name for name in reads if name in columns)
    for name in columns:
        if name in reads:
            continue
        alone = [read for read in reads if name in behind[read] and behind[read] <= {*columns}]
        mixed = [read for read in reads if name in behind[read] and read not in alone]
        if name not in graph.inputs or not (alone or mixed):
            faults.append(f"label '{name}' is not read by the output node '{graph.output}'{close(name, reads)}")
        elif mixed:
            faults.append(
                f"label '{name}' is not read by the output node '{graph.output}' itself, but by {_list(mixed)}, which "
                f"reads more: what of it is the model's output cannot be told; let '{graph.output}' read the label "
                f"and the output, or give the baseline's value"
            )
        chosen |= dict.fromkeys(alone)
    if faults:
        raise StudyError(faults)
    outputs = tuple(name for name in reads if name not in chosen)
    if not chosen or not outputs:
        raise StudyError(
            f"the randomised loss needs an output node that reads a label column and a model's output; "
            f"'{graph.output}' reads {', '.join(reads)}. {ADVICE[0].upper()}{ADVICE[1:]}"
        )
    return Labels(tuple(columns), tuple(chosen), outputs)


def name_labels(given: str | Sequence[str]) -> tuple[str, ...]:
    """The names of labels, of which one may be given as it is."""
    return (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))


def compared_outputs(graph: Graph, labels: str | Sequence[str] | None = None) -> tuple[str, ...]:
    """What a graph's own output node reads besides labels, and slices and copies of them: outputs, to be looked at.

    Args:
        graph: as it was rewritten.
        labels: names that are no outputs; by default the columns that are told to be labels, or else all that the
            output node reads itself.
    """
    if labels is None:
        try:
            known = set(tell_labels(graph).columns)
        except StudyError:
            known = set(graph.inputs)
    else:
        known = set(name_labels(labels))
    for node in graph.nodes.values():  # each after what it reads
        if node.inputs and known.issuperset(node.inputs) and only_moves(node):
            known.add(node.name)
    return tuple(name for name in graph.reads(graph.output) if name not in known)


def _guess(graph: Graph, reads: Sequence[str], behind: dict[str, set[str]]) -> tuple[str, ...]:
    direct = [name for name in reads if name in graph.inputs]
    below = set().union(*(behind[name] for name in reads if name not in direct))
    doubtful = len(direct) > 1 or any(name in below and below != {name} for name in direct)
    if doubtful and len(reads) > len(direct):
        also = [name for name in direct if name in below]
        why = f"{_list(also)} is an input of the model too" if also else "one may be an input that is written into it"
        raise StudyError(
            f"which columns are labels cannot be told: the output node '{graph.output}' reads {_list(direct)} itself, "
            f"and {why}; {ADVICE}"
        )
    return tuple(direct)


def _columns(graph: Graph, name: str) -> set[str]:
    """The columns that a value depends on."""
    return {each for each in (name, *graph.ancestors(name)) if each in graph.inputs}


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
