"""Circuits: the programs' edges as one reads them off their text, and claims about sets of edges."""

from functools import cache
from itertools import pairwise

import pytest
import torch

from pscrub import EXACT, Claim, Hypothesis, unroll
from pscrub.studies.compiled.circuits import OUTPUT, Edge, claim_all_but, claim_circuit, list_edges, list_true_edges
from pscrub.studies.compiled.ladder import Ladder
from pscrub.studies.compiled.model import PROGRAMS, TOKENS, load_program

TRUE = {
    "frac_prevs": "is_x <- tokens; frac_prevs.v <- is_x; output <- frac_prevs",
    "hist": "hist.share.q <- tokens; hist.share.k <- tokens; hist <- hist.share; output <- hist",
    "reverse": "length.share.q <- tokens; length.share.k <- tokens; length <- length.share; opp_idx <- length; "
    "opp_idx-1 <- opp_idx; reverse.q <- opp_idx-1; reverse.v <- tokens; output <- reverse",
    "sort_unique": "target_pos.share.q <- tokens; target_pos.share.k <- tokens; target_pos <- target_pos.share; "
    "sort.k <- target_pos; sort.v <- tokens; output <- sort",
    "pair_balance": "bools_close <- tokens; bools_open <- tokens; opens.v <- bools_open; closes.v <- bools_close; "
    "pair_balance <- opens; pair_balance <- closes; output <- pair_balance",
}
"""Written by hand from each program's text."""
ALL = {"frac_prevs": 10, "hist": 8, "reverse": 33, "sort_unique": 18, "pair_balance": 31}
each_program = pytest.mark.parametrize("name", PROGRAMS)


@cache
def ladder(name: str) -> Ladder:
    return Ladder(load_program(name))


@each_program
def test_true_edges_are_those_of_the_text(name: str) -> None:
    found = list_true_edges(ladder(name).program)
    assert "; ".join(map(str, found)) == TRUE[name]
    assert len(list_edges(ladder(name).program)) == ALL[name] == len(found) + len(ladder(name).others)
    assert len(set(list_edges(ladder(name).program))) == ALL[name]


@each_program
def test_edges_are_what_the_graph_reads(name: str) -> None:
    """Each node of the residual stream reads all earlier variables, none of its own half layer or behind."""
    own = ladder(name)
    for edge in list_edges(own.program):
        assert edge.source in own.graph.reads(edge.reader)
    stages = {each.name: each.stage for each in own.program.components} | {TOKENS: -1}
    for edge in list_edges(own.program):
        if edge.reader != OUTPUT:
            reader = edge.reader if edge.reader in stages else edge.reader[:-2]
            assert stages[edge.source] < stages[reader]
    readers = [name for name in own.graph.nodes if TOKENS in own.graph.reads(name)]
    assert sum(len(own.graph.reads(name)) for name in readers) == ALL[name]


@each_program
def test_weights_agree_with_the_program(name: str) -> None:
    """What a true edge reads has weights there. Of the others only the mark of the start is read, if anything."""
    program = ladder(name).program
    written = {TOKENS: program.embedding.any(0)}
    for component in program.components:
        written[component.name] = component.weights["out"].any(0)
    start = torch.tensor([direction == "tokens:BOS" for direction in program.directions])
    cleared = torch.tensor([direction.partition(":")[0].endswith(".share") for direction in program.directions])
    for component in program.components:
        for part, key in (("q", "query"), ("k", "key"), ("v", "value"), ("in", "in")):
            if key not in component.weights:
                continue
            read = component.weights[key].any(1)
            for source in (each for each in written if each == TOKENS or _stage(name, each) < component.stage):
                both = read & written[source]
                if source in component.reads[part]:
                    assert both.any(), (component.name, part, source)
                else:
                    # Neurons of a width clear their head's share at the start.
                    assert not (both & ~start & ~cleared).any(), (component.name, part, source)


def _stage(name: str, component: str) -> int:
    return next(each.stage for each in ladder(name).program.components if each.name == component)


@each_program
def test_every_hypothesis_is_well_formed(name: str) -> None:
    for seed in (0, 1, 2):
        hypotheses = Ladder(load_program(name), seed).hypotheses()
        assert [each.faults for each in hypotheses] == [()] * len(hypotheses)


def test_a_circuit_claims_its_edges_alone() -> None:
    own = ladder("sort_unique")
    root = claim_circuit(own.program, own.true, lambda variable: EXACT)
    claimed = {f"{reader.at} <- {read.at}" for reader in root.upwards() for read in reader.reads}
    inside = {"loss <- right", "loss <- answer", "answer <- output", "answer <- kept"}
    inside |= {f"{head} <- {read}" for head in ("target_pos.share", "sort") for read in ("kept", f"{head}.k")}
    inside |= {"target_pos.share <- target_pos.share.q", "sort <- sort.v"}
    assert claimed == inside | set(TRUE["sort_unique"].split("; "))


def test_edges_that_lead_from_nowhere_are_dropped() -> None:
    """Without share <- tokens nothing of target_pos is left to be claimed; without any, only the length is."""
    own = ladder("reverse")
    edges = [edge for edge in own.true if not edge.reader.startswith("length.share")]
    claimed = {claim.at for claim in claim_circuit(own.program, edges, lambda variable: EXACT).upwards()}
    assert claimed == {"loss", "right", "answer", "kept", OUTPUT, "reverse", "reverse.v", TOKENS}
    nothing = claim_circuit(own.program, [], lambda variable: EXACT)
    assert {claim.at for claim in nothing.upwards()} == {"loss", "right", "answer", "kept"}


def test_all_but_an_edge_swaps_that_edge_alone() -> None:
    own = ladder("sort_unique")
    edge = Edge("sort.k", "target_pos.share")
    tree = unroll(Hypothesis("all but", own.graph, own.data, claim_all_but(own.program, edge, torch.zeros(205))))
    drawn = {path: tree.source(path) for path, site in tree.sites.items() if int(site.partition.sizes.max()) > 1}
    drawn.pop(tree.root, None)
    assert [*drawn.values()] == [("target_pos.share",)]


def test_where_an_edge_is_all_that_is_read_its_reader_is_swapped() -> None:
    own = ladder("sort_unique")
    claim = claim_all_but(own.program, Edge("target_pos.share.v", TOKENS), torch.zeros(205))
    (reader,) = claim.reads
    assert reader.at == "target_pos.share.v" and not reader.reads and isinstance(claim, Claim)


@each_program
def test_controls_are_of_the_same_size(name: str) -> None:
    drawn = [Ladder(load_program(name), seed) for seed in range(6)]
    for own in drawn:
        assert len(own.random) == len(set(own.random)) == len(own.true)
        assert set(own.random) <= set(list_edges(own.program))
        kept = [edge for edge in own.rewired if edge in own.true]
        lonely = [edge for edge in own.true if not any(each.reader == edge.reader for each in own.others)]
        assert kept == lonely and {edge.reader for edge in own.rewired} == {edge.reader for edge in own.true}
    if name != "frac_prevs":
        assert any(a.random != b.random for a, b in pairwise(drawn))
