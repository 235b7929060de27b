"""Compiles five RASP programs into transformers by Tracr, and writes what `model` reads: weights, circuits, outputs.

    python -m venv tracr && tracr/bin/pip install tracr-pypi safetensors
    tracr/bin/python pscrub/studies/compiled/make.py pscrub/studies/compiled/programs.safetensors

Tracr is no dependency of pscrub, and this file imports nothing of it. The compiled model is cut into components by what
their weights write, each into directions of one variable of the program. What a component is to read, its circuit, is
told by the program's own expressions, never by weights. Outputs are those of Tracr's own model, run in JAX, and values
of variables those of its interpreter of RASP, on all sequences of the program's tokens up to its longest.
"""

import argparse
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BOS, PAD = "BOS", "PAD"
NOTHING = -1
"""What stands for a variable's value where there is no token."""
SHARE = ".share"
"""What the head of a selector's width is called behind its variable: the share of attention left at the start."""
WIDTH = "_selector_width_attn_output"


@dataclass(frozen=True)
class Source:
    """A program to be compiled.

    Args:
        build: Tracr's module of programs and its RASP -> the program.
        text: the program, for people.
        vocabulary: its tokens.
        longest: most tokens of a sequence.
        distinct: it is meant for sequences that hold no token twice.
    """

    build: Callable[[Any, Any], Any]
    text: str
    vocabulary: Sequence[str | int]
    longest: int
    distinct: bool = False


SOURCES = {
    "frac_prevs": Source(
        lambda lib, rasp: lib.make_frac_prevs((rasp.tokens == "x").named("is_x")),
        "frac_prevs = aggregate(select(indices, indices, <=), is_x); is_x = (tokens == x)",
        "abx",
        5,
    ),
    "hist": Source(lambda lib, rasp: lib.make_hist(), "hist = selector_width(select(tokens, tokens, ==))", "abc", 5),
    "reverse": Source(
        lambda lib, rasp: lib.make_reverse(rasp.tokens),
        "reverse = aggregate(select(indices, opp_idx-1, ==), tokens); opp_idx-1 = opp_idx - 1; "
        "opp_idx = length - indices; length = selector_width(select(tokens, tokens, true))",
        "abc",
        5,
    ),
    "sort_unique": Source(
        lambda lib, rasp: lib.make_sort_unique(rasp.tokens, rasp.tokens),
        "sort = aggregate(select(target_pos, indices, ==), tokens); "
        "target_pos = selector_width(select(tokens, tokens, <))",
        range(5),
        4,
        distinct=True,
    ),
    "pair_balance": Source(
        lambda lib, rasp: lib.make_pair_balance(rasp.tokens, "(", ")"),
        "pair_balance = opens - closes; opens = aggregate(select(indices, indices, <=), bools_open); "
        "bools_open = (tokens == '('); closes and bools_close likewise of ')'",
        "()x",
        5,
    ),
}


def compile_all() -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Returns what is told of each program by name, and arrays by program and name ("hist/tokens").

    Raises:
        ImportError: Tracr is not installed here.
    """
    from tracr.compiler import lib
    from tracr.rasp import rasp

    told, arrays = dict[str, Any](), dict[str, np.ndarray[Any, Any]]()
    for name, source in SOURCES.items():
        told[name], own = _compile(source, source.build(lib, rasp))
        arrays |= {f"{name}/{key}": np.ascontiguousarray(value) for key, value in own.items()}
    return told, arrays


def _compile(source: Source, program: Any) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    from tracr.compiler import compiling, nodes, rasp_to_graph

    model = compiling.compile_rasp_to_model(program, set(source.vocabulary), source.longest, False, BOS, PAD)
    expressions = [node[nodes.EXPR] for node in rasp_to_graph.extract_rasp_graph(program).graph.nodes.values()]
    reads, named = _circuit(expressions), [each for each in expressions if _is_variable(each)]
    directions = [_name(label) for label in model.residual_labels]
    params = {f"{module}/{key}": np.array(value) for module, own in model.params.items() for key, value in own.items()}
    arrays = dict(_constants(params, directions))
    components = []
    for part in _components(params, directions, model.model_config):
        components.append({**part.told, "reads": reads[part.told["name"]]})
        arrays |= {f"{part.told['name']}/{key}": value for key, value in part.weights.items()}
    assert {each["name"] for each in components} == set(reads), "each variable is computed by one component"

    sequences = [each for size in range(1, source.longest + 1) for each in _sequences(source, size)]
    code = model.input_encoder.encoding_map
    arrays["tokens"] = np.full((len(sequences), source.longest + 1), code[PAD], np.int8)
    for row, sequence in enumerate(sequences):
        arrays["tokens"][row, : len(sequence) + 1] = [code[token] for token in (BOS, *sequence)]
    sink = _name(program.label)
    written = [place for place, label in enumerate(directions) if label.split(":")[0] == sink]
    arrays["outputs"] = _outputs(model, arrays["tokens"], [len(each) + 1 for each in sequences], written)
    values = {}
    for each in named:
        of_rows = [[_plain(value) for value in each(list(sequence))] for sequence in sequences]
        seen = sorted({value for of_row in of_rows for value in of_row})
        values[_name(each.label)] = seen
        coded = np.full((len(sequences), source.longest), NOTHING, np.int8)
        for row, of_row in enumerate(of_rows):
            coded[row, : len(of_row)] = [seen.index(value) for value in of_row]
        arrays[f"values/{_name(each.label)}"] = coded
    told = {
        "text": source.text,
        "output": sink,
        "numerical": model.output_encoder.__class__.__name__ == "NumericalEncoder",
        "directions": directions,
        "tokens": [str(token) for token, _ in sorted(code.items(), key=lambda item: item[1])],
        "values": values,
        "components": components,
    }
    return told, arrays


def _sequences(source: Source, size: int) -> Iterator[tuple[str | int, ...]]:
    if source.distinct:
        return itertools.permutations(source.vocabulary, size)
    return itertools.product(source.vocabulary, repeat=size)


def _name(label: str) -> str:
    """The name of a direction or an expression without the number that Tracr adds to it."""
    variable, _, value = label.partition(":")
    share = variable.endswith(WIDTH)
    variable = re.sub(r"_\d+$", "", variable.removesuffix(WIDTH)) + (SHARE if share else "")
    return f"{variable}:{value}" if value else variable


def _plain(value: Any) -> Any:
    """A value as it is told apart: 0.6 is 3/5 - 0 and 4/5 - 1/5, whatever rounding made of them."""
    return value if isinstance(value, str) else round(value, 9) if isinstance(value, float) else int(value)


def _is_variable(expression: Any) -> bool:
    from tracr.rasp import rasp

    primitive = isinstance(expression, rasp.TokensType | rasp.IndicesType)
    return isinstance(expression, rasp.SOp) and not primitive


def _circuit(expressions: Sequence[Any]) -> dict[str, dict[str, list[str]]]:
    """Component -> part -> the variables that the program says it reads. Indices are constants, not variables."""
    from tracr.rasp import rasp

    def variables(*read: Any) -> list[str]:
        return list(dict.fromkeys(_name(each.label) for each in read if not isinstance(each, rasp.IndicesType)))

    found = {}
    for each in filter(_is_variable, expressions):
        name = _name(each.label)
        assert name not in found, f"two variables are named {name}"
        if isinstance(each, rasp.Aggregate):
            selector = each.selector
            reads = {"q": variables(selector.queries), "k": variables(selector.keys), "v": variables(each.sop)}
        elif isinstance(each, rasp.SelectorWidth):
            selector = each.selector
            # What is weighted is a mark of the start, the same in every sequence.
            found[f"{name}{SHARE}"] = {"q": variables(selector.queries), "k": variables(selector.keys), "v": []}
            reads = {"in": [f"{name}{SHARE}"]}
        elif isinstance(each, rasp.SequenceMap):
            reads = {"in": variables(each.fst, each.snd)}
        elif isinstance(each, rasp.Map):
            reads = {"in": variables(each.inner)}
        else:
            raise TypeError(f"{name} is a {type(each).__name__}; expected an Aggregate, SelectorWidth or map")
        found[name] = reads
    return found


def _constants(params: dict[str, Any], directions: Sequence[str]) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """What tokens are embedded as, [token, direction]; and places with the direction that is 1, [place, direction]."""
    assert not any(value.any() for name, value in params.items() if name.endswith("/b")), "biases are 0"
    embedded, positions = params["token_embed/embeddings"].copy(), params["pos_embed/embeddings"].copy()
    if "one" in directions:
        one = directions.index("one")
        positions[:, one] += embedded[0, one]
        embedded[:, one] = 0
    yield "embedding", embedded
    yield "positions", positions


@dataclass(frozen=True)
class Part:
    """A component: what is told of it, and its weights."""

    told: dict[str, Any]
    weights: dict[str, np.ndarray[Any, Any]]


def _components(params: dict[str, Any], directions: Sequence[str], config: Any) -> Iterator[Part]:
    """Heads and groups of neurons, in the model's order. `stage`: those of one stage do not read one another."""

    def written(weights: np.ndarray[Any, Any]) -> set[str]:
        return {
            directions[place].split(":")[0]
            for place in np.flatnonzero(weights.reshape(-1, len(directions)).any(0)).tolist()
        }

    for layer in range(config.num_layers):
        attention, mlp = (f"transformer/layer_{layer}/{half}" for half in ("attn", "mlp"))
        for head in range(config.num_heads):
            own = slice(head * config.key_size, (head + 1) * config.key_size)
            out = params[f"{attention}/linear/w"][own]
            if not out.any():
                continue
            (name,) = written(out)
            weights = {key: params[f"{attention}/{key}/w"][:, own] for key in ("query", "key", "value")} | {"out": out}
            scored = np.flatnonzero(weights["query"].any(0) | weights["key"].any(0))
            carried = np.flatnonzero(weights["value"].any(0) | out.any(1))
            weights = {"query": weights["query"][:, scored], "key": weights["key"][:, scored]}
            weights |= {"value": params[f"{attention}/value/w"][:, own][:, carried], "out": out[carried]}
            yield Part({"name": name, "stage": 2 * layer, "kind": "head", "divisor": config.key_size**0.5}, weights)
        groups: dict[str, list[int]] = {}
        for neuron, out in enumerate(params[f"{mlp}/linear_2/w"]):
            if out.any():
                # Some neurons clear the start, where they take away the share of attention too.
                (name,) = {each.removesuffix(SHARE) for each in written(out)}
                groups.setdefault(name, []).append(neuron)
        for name, neurons in groups.items():
            weights = {"in": params[f"{mlp}/linear_1/w"][:, neurons], "out": params[f"{mlp}/linear_2/w"][neurons]}
            yield Part({"name": name, "stage": 2 * layer + 1, "kind": "neurons"}, weights)


def _outputs(model: Any, tokens: np.ndarray[Any, Any], sizes: Sequence[int], written: Sequence[int]) -> Any:
    """float32 [row, place, direction]: what Tracr's model says, before an argmax, of each sequence without padding."""
    found = np.zeros((len(tokens), tokens.shape[1] - 1, len(written)), np.float32)
    for size in sorted(set(sizes)):
        rows = [row for row, own in enumerate(sizes) if own == size]
        made = model.forward(model.params, tokens[rows, :size].astype(np.int32)).transformer_output.output
        found[rows, : size - 1] = np.array(made)[:, 1:, written]
    return found


def main() -> None:
    """Returns nothing: compiles the programs, writes the file and says what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the file to write (safetensors, replaced if there)")
    out = parser.parse_args().out
    try:
        from safetensors.numpy import save

        told, arrays = compile_all()
    except ImportError as error:
        parser.error(f"{error}; the programs are compiled by Tracr: pip install tracr-pypi safetensors, in a venv")
    content = save(arrays, {"programs": json.dumps(told)})
    out.write_bytes(content)
    for name, each in told.items():
        rows, components = len(arrays[f"{name}/tokens"]), ", ".join(part["name"] for part in each["components"])
        sys.stdout.write(f"{name}: {rows} sequences, {len(each['directions'])} directions; {components}\n")
    sys.stdout.write(f"{out}: {len(content):,} bytes\n")


if __name__ == "__main__":
    main()
