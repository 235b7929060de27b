"""Plans shown: what each hypothesis of a study takes beside one run of the model."""

from __future__ import annotations

from pscrub.evaluate.engine import Engine
from pscrub.evaluate.plan import Kind, Values, order_of
from pscrub.hypothesis.study import Study
from pscrub.hypothesis.tree import Tree, unroll
from pscrub.result.table import Table

MIB = 2**20
NAMED = 3
"""Nodes that are named of those computed for each draw."""
HEAD = (
    "sites", "data", "operations of f", "for each draw", "Mflop of f", "Mflop on D", "Mflop a draw",
    "values on D", "MiB", "kept", "peak MiB", "computed for each draw",
)  # fmt: skip


def plan_table(study: Study, memory: int) -> Table:
    """A line for each hypothesis: operations and flops of one run of the model and of each draw, and values kept on D.

    Flops are of one row: of f as the model computes it, of what is computed on D (f and what draws read of the model,
    of each only what is read), and of what is computed for a draw. The values of a study's hypotheses on D are computed
    in one pass for each graph, those that several read once. The peak is of all values that live at once, kept ones and
    those of the chunks worked on; columns and the model apart.

    Args:
        study: whose hypotheses.
        memory: bytes for values on D: what is beyond is computed for the draws from what is kept.
    """
    engine = Engine(study.hypotheses[0].data, memory=memory)
    rows = [(h.name, *_cells(engine, unroll(h))) for h in study.hypotheses]
    return Table(("hypothesis", *HEAD), tuple(rows), title=study.name)


def _cells(engine: Engine, tree: Tree) -> tuple[str, ...]:
    graph = tree.hypothesis.graph
    plan, kept, roots = engine.plan(tree), engine.kept(graph), engine.asked(tree).roots
    values, f = plan.values, plan.values.on_data(graph.output)
    frontier = [n for n in plan.frontier_of(roots) if values[n].kind is Kind.ON_D]
    size = kept.bytes_of(frontier)
    peak = engine.peak(tree)  # sizes are noted
    on_data, draws, mixed = kept.narrowed([f, *frontier])[0], engine.code_if_kept(tree), plan.mixed_of(roots)
    named = [name for name in graph.nodes if name in plan.computed]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return (
        *(f"{n:,}" for n in (len(tree.sites), len(set(plan.datum.values())))),
        *(f"{n:,}" for n in (count_operations(values, graph.output), len(mixed))),
        *(f"{sum(kept.flops(code).values()) / 1e6:,.3g}" for code in (kept.code([f]), on_data, draws)),
        *(f"{len(frontier):,}", f"{size / MIB:,.1f}", "all" if size <= kept.memory else "a part"),
        *(f"{peak / MIB:,.1f}", ", ".join(named[:NAMED]) + more),
    )


def count_operations(values: Values, node: str) -> int:
    """Operations that a node's value takes on D, each counted once."""
    return len(order_of(values, [values.on_data(node)], lambda n: values[n].kind is not Kind.ON_D))
