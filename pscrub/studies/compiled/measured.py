"""Counts, edge by edge, the pairs of sequences of which one's value in place of the other's changes an answer.

    python -m pscrub.studies.compiled.measured
    python -m pscrub.studies.compiled.measured --program reverse --edges
    python -m pscrub.studies.compiled.measured --model turned

Every pair of D is run, so that what is printed is exact: nothing is drawn. All but the edge is the row's own.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pscrub.studies.compiled.circuits import OUTPUT, Edge
from pscrub.studies.compiled.graphs import NO_ANSWER
from pscrub.studies.compiled.ladder import Ladder
from pscrub.studies.compiled.model import PROGRAMS, Program
from pscrub.studies.compiled.study import MODELS, load_compiled

PAIRS = 2**14
"""About how many are run at a time."""


@dataclass(frozen=True)
class Counted:
    """What replacing one edge does, over all pairs of a row and a donor.

    Args:
        edge: whose value at the row is replaced by that at the donor.
        pairs: how many.
        noticed: of them, those in which an answer that is scored is another one.
        loss: the mean share of wrong answers: E_scrubbed of "everything but this edge".
        moved: the largest change of the output where there is a token.
    """

    edge: Edge
    pairs: int
    noticed: int
    loss: float
    moved: float


def count_edge(ladder: Ladder, edge: Edge) -> Counted:
    """Returns what an edge's replacement does, counted over all pairs of D by running the graph."""
    graph, data = ladder.graph, ladder.data
    with torch.no_grad():
        own = graph.run(graph.nodes, {name: data[name] for name in graph.inputs})
    own |= {name: data[name] for name in graph.inputs}
    reader = graph.nodes[edge.reader]
    # What the reader's value reaches is computed anew; what else that reads is as on the row.
    behind = {name for name in graph.nodes if edge.reader in graph.ancestors(name)}
    beside = {name for each in behind for name in graph.reads(each)} - behind - {edge.reader}
    # Donors of one value do the same: each value is tried once, and counts as often as rows have it.
    values, times = own[edge.source].unique(dim=0, return_counts=True)
    noticed, loss, moved = 0, 0.0, 0.0
    for rows in torch.arange(data.n).split(max(1, PAIRS // len(values))):
        row, donor = torch.cartesian_prod(rows, torch.arange(len(values))).unbind(1)
        read = [values[donor] if name == edge.source else own[name][row] for name in reader.inputs]
        with torch.no_grad():
            given = {name: own[name][row] for name in beside} | {edge.reader: reader(*read)}
            made = graph.run(["loss", "answer", OUTPUT], given)
        scored, kept = data["right"][row] != NO_ANSWER, data["kept"][row]
        other = ((made["answer"] != own["answer"][row]) & scored).any(1)
        noticed += int((other * times[donor]).sum())
        loss += float((made["loss"] * times[donor]).sum())
        moved = max(moved, float((made[OUTPUT] - own[OUTPUT][row]).abs().amax(2)[kept].max()))
    return Counted(edge, data.n**2, noticed, loss / data.n**2, moved)


def tell_edges(program: Program, each_edge: bool = False) -> Iterator[str]:
    """Returns lines of what is counted of a program, each with its newline.

    Args:
        program: the compiled program.
        each_edge: give each edge of the model its line.
    """
    ladder = Ladder(program)
    true = [count_edge(ladder, edge) for edge in ladder.true]
    others = [count_edge(ladder, edge) for edge in ladder.others]
    least = min(true, key=lambda each: round(each.loss, 9))
    yield f"{program.name}: {ladder.data.n} sequences, {ladder.data.n**2:,} pairs\n"
    yield f"  {sum(each.noticed > 0 for each in true)} of {len(true)} true edges are noticed; the least, {least.edge}, "
    yield f"in {least.noticed:,} pairs, with a loss of {least.loss:.4f}\n"
    yield f"  {sum(each.noticed > 0 for each in others)} of {len(others)} other edges are noticed; "
    yield f"{sum(each.moved > 0 for each in others)} move the output, by at most "
    yield f"{max(each.moved for each in others):.1e}\n"
    if each_edge:
        for kind, counted in (("true", true), ("other", others)):
            for each in counted:
                yield f"  {kind:6}{each.edge!s:40}{each.noticed:8,}{each.loss:10.4f}{each.moved:12.1e}\n"


def main() -> None:
    """Returns nothing: prints what was counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", choices=PROGRAMS, help="one program alone")
    parser.add_argument("--model", choices=MODELS, default=MODELS[0], help="as of the study (default: %(default)s)")
    parser.add_argument("--edges", action="store_true", help="each edge: pairs noticed, loss, largest change of output")
    options = parser.parse_args()
    for name in PROGRAMS if options.program is None else (options.program,):
        for line in tell_edges(load_compiled(name, options.model), options.edges):
            sys.stdout.write(line)


if __name__ == "__main__":
    main()
