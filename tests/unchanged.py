"""Whether a change that is meant to change no number changes none: what every shipped study gives, bit for bit.

    python -m tests.unchanged save out/before     # on the commit before the change
    python -m tests.unchanged compare out/before  # on the commit after it; exits 1 and lists what differs

For each shipped study the commands of the command line are run at fixed seeds and draws, and what they print and write
is kept: standard output, `result.json`, `table.md`, `report.html` and every array of `result.nc`. Left out are times,
dates and versions. A record of `result.nc` may have gained a field since; it may not have lost or changed one. Of a
table that is printed its words and figures are compared, not how it is ruled and padded.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import netcdf_file

from pscrub.cli import main

SMALL = (
    "ablation_ring",
    "ablation_mean",
    "ablation_backup",
    "superposition",
    "hash_game",
    "cancellation",
    "sin_cos",
    "specificity",
)
RULING = re.compile(r"[\s\u2500-\u257f|]+|:?-{3,}:?|\\\\(?=\\|)")
"""What tables are drawn with."""
PASSING = ("seconds", "started", "versions")
"""Keys whose values are another in every run."""
MARKUP = re.compile(r"<tr><th scope=\"row\">(started|seconds|versions)</th>.*?</tr>|, seed \d+, [^<]*?</p>")


def commands() -> Iterator[tuple[str, list[str]]]:
    """A name for each run, and its arguments; `OUT` stands for a folder of its own."""
    for study in SMALL:
        whole = ["--draws", "300", "--claims", "64", "--data-uncertainty", "--out", "OUT", "--json"]
        yield f"run {study}", ["run", study, *whole]
        yield f"table {study}", ["run", study, "--draws", "64", "--seed", "3"]
        yield f"verify {study}", ["verify", study, "--draws", "300", "--json"]
        yield f"verified {study}", ["verify", study, "--draws", "300"]
        for question in ("adversary", "sharing", "ablations"):
            yield f"{question} {study}", [question, study, "--draws", "256", "--markdown"]
        yield f"frontier {study}", ["frontier", study, "--draws", "256"]
        yield f"show {study}", ["show", study]
    for interval in ("t", "betting", "bernstein", "sequence"):
        asked = ["--interval", interval, *(() if interval == "t" else ("--bounds", "0", "9"))]
        yield f"{interval} ablation_backup", ["run", "ablation_backup", *asked, "--draws", "500", "--json"]
    few = ["-P", "rows=1500", "--by", "balanced"]
    for study in ("brackets", "bracket_heads"):
        yield f"run {study}", ["run", study, *few, "--draws", "200", "--data-uncertainty", "--out", "OUT", "--json"]
        yield f"show {study}", ["show", study, "-P", "rows=1500"]
    some = ["-P", "rows=300", "--draws", "64", "--measures"]
    yield "run modular_addition", ["run", "modular_addition", *some, "--out", "OUT"]
    yield "run induction", ["run", "induction", *some, "--out", "OUT"]
    yield "run compiled", ["run", "compiled", "--draws", "64", "--measures", "--out", "OUT"]
    yield "run max_of_k", ["run", "max_of_k", "--draws", "64", "--measures", "--out", "OUT"]
    untrained = ["-P", "model=untrained", "-P", "repeats=2", "-P", "oriented=0.3"]  # what needs no extra
    yield "run curves", ["run", "curves", *untrained, "--draws", "64", "--measures", "--out", "OUT"]
    yield "until brackets", ["run", "brackets", *few, "--until-width", "5", "--json"]
    yield "verify brackets", ["verify", "brackets", "-P", "rows=300", "--draws", "100", "--json"]
    yield "sharing brackets", ["sharing", "brackets", "-P", "rows=300", "--hypothesis", "1a", "--draws", "64"]


def kept(name: str, arguments: list[str]) -> dict[str, str]:
    """File -> what a run gave, without what is another in every run; the empty file is standard output."""
    with tempfile.TemporaryDirectory() as folder:
        out, printed = Path(folder) / "out", io.StringIO()
        given = [str(out) if each == "OUT" else each for each in arguments]
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()) as said:
            status = main(given)
        text = printed.getvalue()
        if status:
            sys.exit(f"`pscrub {' '.join(given)}` ended with {status}: {said.getvalue()}")
        found = {"": _plain(text) if "--json" in given else text}
        for path in sorted(each for each in out.glob("*") if each.is_file()):
            if path.suffix == ".nc":
                found |= {f"{path.name} {key}": value for key, value in _stored(path).items()}
            elif path.suffix == ".json":
                found[path.name] = _plain(path.read_text())
            else:
                found[path.name] = MARKUP.sub("", path.read_text())
    return {f"{name}: {file}": each.replace(folder, "DIR") for file, each in found.items()}


def _plain(text: str) -> str:
    return json.dumps(_without(json.loads(text)), indent=1)


def _without(value: Any) -> Any:
    """A document without the keys that are another in every run, in the two forms that mappings are kept in."""
    if isinstance(value, dict):
        return {key: _without(each) for key, each in value.items() if key not in PASSING}
    return [_without(each) for each in value] if isinstance(value, list) else value


def _stored(path: Path) -> dict[str, str]:
    with netcdf_file(path, "r", mmap=False) as file:
        arrays = {name: np.asarray(variable[:]).copy() for name, variable in file.variables.items()}
    text = json.dumps(_without(json.loads(arrays.pop("json").tobytes())), indent=1)
    return {"json": text} | {name: f"{a.dtype}{a.shape} {a.tobytes().hex()}" for name, a in arrays.items()}


def _lost(before: Any, after: Any, at: str = "") -> Iterator[str]:
    """Where a document lacks or changes something of an earlier one; what it has besides is not looked at."""
    if isinstance(after, dict) and "$said" in after and isinstance(before, str):
        after = after["$said"]  # a sentence that has been given a kind
    if isinstance(before, dict) and isinstance(after, dict):
        for key, each in before.items():
            if key not in after:
                yield f"{at}.{key} is gone"
            else:
                yield from _lost(each, after[key], f"{at}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, pair in enumerate(zip(before, after, strict=True)):
            yield from _lost(*pair, f"{at}[{i}]")
    elif before != after:
        yield f"{at}: {str(before)[:200]} -> {str(after)[:200]}"


def _lines(text: str) -> list[str]:
    """The lines of a text without what tables are drawn with; those that are nothing else left out."""
    return [line for line in (RULING.sub(" ", each).strip() for each in text.splitlines()) if line]


def differences(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    """Each difference of two sets of what was kept, in a line."""
    for name in dict.fromkeys((*before, *after)):
        if name not in before or name not in after:
            yield f"{name}: only {'before' if name in before else 'after'}"
        elif name.endswith(".nc json"):
            yield from (f"{name} {each}" for each in _lost(json.loads(before[name]), json.loads(after[name])))
        elif (one := _lines(before[name])) != (other := _lines(after[name])):
            changed = [(a, b) for a, b in zip(one, other, strict=False) if a != b][:3] or [(one[-1], other[-1])]
            yield f"{name}: {len(one)} and {len(other)} lines; " + "; ".join(
                f"{a.strip()[:160]!r} -> {b.strip()[:160]!r}" for a, b in changed
            )


def _main(verb: str, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    file, found = folder / "unchanged.json", dict[str, str]()
    torch.set_num_threads(1)  # sums are the same whatever the threads; two cores are shared
    for name, arguments in commands():
        start = time.perf_counter()
        found |= kept(name, arguments)
        print(f"{time.perf_counter() - start:6.1f} s  {name}", file=sys.stderr)
    if verb == "save":
        file.write_text(json.dumps(found))
        return 0
    told = list(differences(json.loads(file.read_text()), found))
    print("\n".join(told) or f"nothing differs: {len(found)} texts and arrays of {len(list(commands()))} runs")
    return 1 if told else 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("save", "compare"):
        sys.exit(__doc__)
    sys.exit(_main(sys.argv[1], Path(sys.argv[2])))
