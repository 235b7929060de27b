"""Circuits as other tools keep them: the JSON of EAP-IG and MIB, auto-circuit's names of edges."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pscrub.errors import HypothesisError
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.notation import read_ref

INPUT, OUTPUT = "resid_pre.0", "logits"
"""What other tools call the input is the residual stream before the first block."""
_EAP = re.compile(r"a(?P<layer>\d+)\.h(?P<head>\d+)(?:<(?P<part>[qkv])>)?|m(?P<mlp>\d+)|(?P<end>input|logits)")
_AUTO = re.compile(
    r"A(?P<layer>\d+)\.(?P<head>\d+)(?:\.(?P<part>[QKV]))?|MLP (?P<mlp>\d+)|(?P<end>Resid Start|Resid End)"
)
_HEAD = re.compile(r"(?P<layer>\d+)\.(?P<head>\d+)(?:\.(?P<part>[qkv]))?")
_FORMS = {
    "EAP-IG": (_EAP, "'input', 'a0.h1', 'a0.h1<q>', 'm0' or 'logits'"),
    "auto-circuit": (_AUTO, "'Resid Start', 'A0.1', 'A0.1.Q', 'MLP 0' or 'Resid End'"),
}


def read_eap(source: str | Path | Mapping[str, Any]) -> dict[str, list[str]]:
    """The edges of an EAP-IG or MIB circuit that are in the graph, as `circuit` reads them.

    Where those tools run edges of the graph on the input and all others on one corrupted input, causal scrubbing draws
    that other input from D: `replace(circuit(name, decoder, read_eap(path), behaviour=f), sharing="all")`. Edges that
    are on no path from the input to the logits change nothing in those tools, which is why they are left out.

    Args:
        source: a file, or what it holds: "edges" {"a0.h1->m2": {"in_graph": True, ...}}, and "nodes" if there are any.

    Raises:
        HypothesisError: another form, edges that cannot be read, nodes without some neurons, no path in the graph.

    >>> chosen = {"input->a0.h1<q>": True, "a0.h1->logits": True, "a0.h0->logits": True, "input->logits": False}
    >>> read_eap({"edges": {edge: {"in_graph": each} for edge, each in chosen.items()}})
    {'0.1.q': ['resid_pre.0'], 'logits': ['0.1']}
    """
    held: Any = source
    if not isinstance(source, Mapping):
        try:
            held = json.loads(Path(source).read_text())
        except (OSError, ValueError) as error:
            raise HypothesisError(f"'{source}' cannot be read as JSON: {error}") from error
    edges = held.get("edges") if isinstance(held, Mapping) else None
    if not isinstance(edges, Mapping) or any("in_graph" not in (edge or {}) for edge in edges.values()):
        raise HypothesisError("no circuit of EAP-IG's form; expected 'edges', a mapping of names to {'in_graph': ...}")
    partly = [
        name
        for name, node in held.get("nodes", {}).items()
        if node.get("in_graph") and not all(node.get("neurons") or [True])
    ]
    if partly:
        raise HypothesisError(f"nodes with some neurons left out: {', '.join(partly)}; only whole nodes can be read")
    return _read([name for name, edge in edges.items() if edge["in_graph"]], "EAP-IG")


def read_auto_circuit(edges: Iterable[str]) -> dict[str, list[str]]:
    """Edges by auto-circuit's names, as `circuit` reads them.

    Args:
        edges: names, such as "A1.2->A5.3.Q"; of a mapping of edges to scores, the keys to take.

    Raises:
        HypothesisError: names of another form, none at all.

    >>> read_auto_circuit(["Resid Start->A0.1.Q", "A0.1->MLP 0", "MLP 0->Resid End", "A0.1->Resid End", "A0.0->MLP 0"])
    {'0.1.q': ['resid_pre.0'], 'm0': ['0.1'], 'logits': ['m0', '0.1']}
    """
    return _read(edges, "auto-circuit")


def write_eap(hypothesis: Hypothesis, layers: int, heads: int, parallel: bool = False) -> dict[str, Any]:
    """A circuit as EAP-IG and MIB keep it: every edge of the model, with those of the circuit in the graph.

    Args:
        hypothesis: one that `circuit` made of whole heads, MLPs, the input and the logits, at all positions.
        layers: of the model.
        heads: of a layer.
        parallel: attention and MLP of a block read one and the same stream.

    Raises:
        HypothesisError: parts that such a file has no name for (positions, neurons, single embeddings).
    """
    chosen, faults = set[str](), list[str]()
    for claim in hypothesis.claims[1:]:
        if claim.at in hypothesis.data.names:
            continue
        for read in claim.reads:
            found = _HEAD.fullmatch(read.name)
            if _HEAD.fullmatch(claim.name) and found and found["part"]:
                continue  # a head's own q, k and v, which the form has no edge for
            try:
                chosen.add(f"{_name_eap(read.name)}->{_name_eap(claim.name)}")
            except HypothesisError as error:
                faults += error.faults
    if faults:
        raise HypothesisError(dict.fromkeys(faults))
    nodes = ["input"]
    edges: list[str] = []
    for layer in range(layers):
        attention = [f"a{layer}.h{head}" for head in range(heads)]
        edges += [f"{source}->{head}<{part}>" for source in nodes for head in attention for part in "qkv"]
        edges += [f"{source}->m{layer}" for source in (nodes if parallel else [*nodes, *attention])]
        nodes += [*attention, f"m{layer}"]
    edges += [f"{source}->logits" for source in nodes]
    missing = sorted(chosen - {*edges})
    if missing:
        raise HypothesisError(f"edges that a model of {layers} layers of {heads} heads has not: {', '.join(missing)}")
    inside = {end for edge in chosen for end in re.sub(r"<.>", "", edge).split("->")}
    return {
        "cfg": {"n_layers": layers, "n_heads": heads, "parallel_attn_mlp": parallel},
        "nodes": {name: {"in_graph": name in inside} for name in [*nodes, "logits"]},
        "edges": {name: {"in_graph": name in chosen, "score": float(name in chosen)} for name in edges},
    }


def _read(names: Iterable[str], form: str) -> dict[str, list[str]]:
    pattern, expected = _FORMS[form]
    found, faults = dict[str, list[str]](), list[str]()
    for edge in names:
        ends = [pattern.fullmatch(end) for end in edge.split("->")]
        if len(ends) != 2 or not ends[0] or not ends[1]:
            faults.append(f"'{edge}' is no edge of {form}'s; expected 'source->reader', each {expected}")
        else:
            source, reader = (_name_own(end) for end in ends if end)
            found.setdefault(reader, []).append(source)
    if faults:
        raise HypothesisError(faults)
    kept = _drop_loose(found)
    if not kept:
        raise HypothesisError(f"the {form} circuit has no path from the input to the logits")
    return kept


def _drop_loose(edges: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The edges on some path from the input to the logits. A head's z, its source, is read through its q, k and v."""

    def node(end: str) -> str:
        return re.sub(r"\.[qkv]$", "", end)

    fed, wanted = {INPUT}, {OUTPUT}
    for _ in range(1 + sum(map(len, edges.values()))):  # as long as a path can be
        before = len(fed) + len(wanted)
        fed |= {node(reader) for reader, sources in edges.items() if not fed.isdisjoint(sources)}
        wanted |= {source for reader, sources in edges.items() if node(reader) in wanted for source in sources}
        if len(fed) + len(wanted) == before:
            break
    kept = {r: [s for s in sources if s in fed] for r, sources in edges.items() if node(r) in wanted}
    return {reader: sources for reader, sources in kept.items() if sources}


def _name_own(end: re.Match[str]) -> str:
    if end["end"]:
        return INPUT if end["end"] in ("input", "Resid Start") else OUTPUT
    if end["mlp"]:
        return f"m{end['mlp']}"
    return f"{end['layer']}.{end['head']}" + (f".{end['part'].lower()}" if end["part"] else "")


def _name_eap(name: str) -> str:
    ref = read_ref(name)
    head = _HEAD.fullmatch(name)
    if head:
        return f"a{head['layer']}.h{head['head']}" + (f"<{head['part']}>" if head["part"] else "")
    if name in (INPUT, OUTPUT) or re.fullmatch(r"m\d+", name):
        return "input" if name == INPUT else name
    why = "a position" if ref.spot else "entries" if ref.within else "a name that such files have not"
    raise HypothesisError(f"'{name}' has {why}; EAP-IG's form knows whole heads, 'm0', '{INPUT}' and '{OUTPUT}'")
