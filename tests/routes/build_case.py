"""An oracle's case as objects of the package."""

import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Node
from tests.routes.oracle import Case


def build(case: Case, name: str = "case") -> Hypothesis:
    """The hypothesis that a case describes, columns and features int64 [N]."""
    rows = torch.tensor(case.rows)
    data = Dataset({column: rows[:, i] for i, column in enumerate(case.columns)}, case.weights)
    nodes = [Node(name, node.inputs, node.fn) for name, node in case.nodes.items()]
    built: dict[str, Claim] = {}

    def claim(name: str) -> Claim:
        if name not in built:  # one object, however many claims read it
            said = case.claims[name]
            reads = tuple(claim(read) for read in said.reads)
            built[name] = Claim(said.at, torch.tensor(said.feature), reads, name=name, paths=said.paths, rest=said.rest)
        return built[name]

    graph = Graph(nodes, case.columns, case.claims[case.root].at)
    sharing = case.sharing if isinstance(case.sharing, str) else dict(case.sharing)
    return Hypothesis(name, graph, data, claim(case.root), sharing)
