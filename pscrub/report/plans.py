"""Plans shown: what each hypothesis of a study takes beside one run of the model."""

from __future__ import annotations

from pscrub.evaluate.engine import Engine
from pscrub.evaluate.plan import Kind, Values, order_of
from pscrub.hypothesis.study import Study
from pscrub.hypothesis.tree import unroll
from pscrub.result.table import Table

MIB = 2**20


def plan_table(study: Study, memory: int) -> Table:
    """A line for each hypothesis: operations of one run of the model, of each draw, and values kept on D.

    The values of a study's hypotheses on D are computed in one pass for each graph, those that several read once.

    Args:
        study: whose hypotheses.
        memory: bytes for values on D: what is beyond is computed for the draws from what is kept.
    """
    engine = Engine(study.hypotheses[0].data, memory=memory)
    rows = []
    for hypothesis in study.hypotheses:
        tree = unroll(hypothesis)
        plan, kept = engine.plan(tree), engine.kept(hypothesis.graph)
        own = count_operations(plan.values, hypothesis.graph.output)
        frontier = [n for n in plan.frontier if plan.values[n].kind is Kind.ON_D]
        size = kept.bytes_of(frontier)
        cells = (len(tree.sites), len(set(plan.datum.values())), own, len(plan.mixed), len(frontier))
        within = "all" if size <= memory else "a part"
        rows.append((hypothesis.name, *(f"{n:,}" for n in cells), f"{size / MIB:,.1f}", within))
    head = ("sites", "data", "operations of f", "for each draw", "values on D", "MiB", "kept")
    return Table(("hypothesis", *head), tuple(rows), title=study.name)


def count_operations(values: Values, node: str) -> int:
    """Operations that a node's value takes on D, each counted once."""
    return len(order_of(values, [values.on_data(node)], lambda n: values[n].kind is not Kind.ON_D))
