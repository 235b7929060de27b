"""The command line: what it prints where, what it writes, and one clear line for every bad input."""

from __future__ import annotations

import importlib
import json
import re
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import pscrub
from pscrub.cli import main
from pscrub.estimate.stopping import ROUND
from pscrub.progress import interrupts_kept
from pscrub.studies import SHIPPED, shipped

STUDY = '''
"""A tiny trained-looking classifier of signs, with its own labels."""

import torch
from torch import nn

import pscrub
from pscrub import trace


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape).sin())

    def forward(self, x):
        return self.last(self.first(x).relu())[:, 0]


def study(rows: int = 200, scale: float = 1.0, both: bool = False, where: str = "first"):
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
    data = pscrub.Dataset({"x": scale * x, "label": (x.sum(1) > 0).float()})
    loss = pscrub.Node("loss", ("out", "label"), lambda out, label: (out - label) ** 2)
    graph = trace(Net(), data, cuts={"first": "first"}, inputs=["x"], output="out", behaviour=loss)
    label, sign = pscrub.Claim("label", "label"), pscrub.Claim(where, data["x"][:, 0] > 0)
    claims = {"sign": pscrub.Claim("loss", reads=[label, pscrub.Claim("out", reads=[sign])])}
    claims |= {"nothing": pscrub.Claim("loss", reads=[label])} if both else {}
    hypotheses = [pscrub.Hypothesis(name, graph, data, claim) for name, claim in claims.items()]
    return pscrub.Study("signs", hypotheses, notes=[f"of {rows} rows"])
'''
FAILS = """times = []


def failing(out, label):
    out.numpy()  # which tracing cannot follow: the function is called as it is
    times.extend([1] * (len(out) == 50))
    if len(times) >= 2:
        raise RuntimeError("the second time")
    return (out - label) ** 2


"""
"""A loss that fails on the draws of the second hypothesis, of 50 draws each."""
ROW = {"hypothesis", "scrubbed", "model", "randomised", "recovered", "low", "high", "draws"}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "signs.py"
    path.write_text(STUDY)
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line on standard error of a command that ends with status 2."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("pscrub: ")
    return line


# run


def test_a_users_own_study_end_to_end(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "made" / "here"
    options = ["--draws", "2000", "--draws-only", "--json", "--out", str(folder), "-P", "both=yes", "--seed", "3"]
    assert main(["run", file, *options]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)  # one document and nothing else
    assert [row["hypothesis"] for row in document["rows"]] == ["sign", "nothing"]
    for row in document["rows"]:
        assert row.keys() >= ROW
        assert row["draws"] == 2000 and row["low"] < row["recovered"] < row["high"]
        expected = 100 * (row["scrubbed"] - row["randomised"]) / (row["model"] - row["randomised"])
        assert row["recovered"] == pytest.approx(expected)
    assert (document["study"], document["seed"], document["cut_short"]) == ("signs", 3, False)
    assert document["notes"] == ["of 200 rows"]
    # Progress went to standard error: a line for each hypothesis, and where the files are.
    assert re.search(r"1/2\s+sign: .* % recovered", err) and re.search(r"2/2\s+nothing: ", err)
    derived = ["report.html", "result.json", "result.nc", "table.md"]
    kept = ["manifest.json", "rounds", "study.nc"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept + derived)
    assert json.loads((folder / "result.json").read_text()) == document
    table = (folder / "table.md").read_text()
    assert table.count("\n| ") >= 3 and "| sign |" in table and "of 200 rows" in table


def test_the_label_is_said_and_can_be_given(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", file, "--draws", "50", "--label", "label"]) == 0
    assert "distinct labels (label: label)." in capsys.readouterr().out
    assert "label 'lable' is not read by the output node" in refused(capsys, "run", file, "--label", "lable")
    assert main(["frontier", file, "--draws", "50", "--label", "label"]) == 0


def test_a_table_without_json(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", file, "--draws", "500"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    head = next(line for line in lines if "hypothesis" in line)
    for words in ("E_model", "E_randomised", "E_scrubbed", "recovered %", "95 % interval", "draws"):
        assert words in head
    row = next(line for line in lines if "sign" in line)
    assert re.search(r"sign +│? *[\d.]+ .*[\d.]+ .*\[-?[\d.]+, -?[\d.]+\].* 500", row)  # no figure is cut off
    assert "Intervals are for the uncertainty of the draws: D, its weights and the model are held fixed." in lines
    assert "of 200 rows" in lines
    assert "1/1" in err and "1/1" not in out


def test_the_same_seed_prints_the_same_numbers(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    def numbers(seed: str) -> list[Any]:
        assert main(["run", file, "--draws", "600", "--json", "--seed", seed]) == 0
        (row,) = json.loads(capsys.readouterr().out)["rows"]
        return [row[key] for key in sorted(ROW)]

    assert numbers("1") == numbers("1") != numbers("2")


def test_until_width(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", file, "--until-width", "3", "--json", "--draws-only"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert 0 < row["high"] - row["low"] <= 3 and row["draws"] >= ROUND


def test_what_is_cheap_is_exact(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", file, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["high"] == row["low"] and row["draws"] == 0 and row["method"].startswith("exact: the law of f (")
    assert main(["run", file]) == 0
    out, err = capsys.readouterr()
    assert "All is exact: there is no uncertainty of draws" in out and err.endswith("% recovered exact\n")


def test_parameters_take_the_type_of_their_annotation(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", file, "--draws", "50", "--json", "-P", "rows=64", "-P", "scale=0.5", "-P", "both=0"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["notes"] == ["of 64 rows"] and len(document["rows"]) == 1


def test_json_has_no_nan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nan.py"
    path.write_text(STUDY.replace("(out - label) ** 2", "(out - label).log()"))
    assert main(["run", str(path), "--draws", "500", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["rows"]
    assert row["scrubbed"] is None and row["recovered"] is None and row["low"] is None
    assert any("non-finite loss" in warning for warning in row["warnings"])


def test_files_are_written_whole_or_not_at_all(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"

    def files() -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert main(["run", file, "--draws", "50", "--out", str(folder)]) == 0
    before = files()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    capsys.readouterr()
    assert main(["run", file, "--draws", "80", "--out", str(folder)]) == 2
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert files() == before  # nor is anything left lying about


def test_an_interrupt_prints_the_estimates_so_far(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = 0

    def interrupt(_: object, phase: str, done: int, total: int) -> None:
        nonlocal told
        told += phase == "draws" and done == total
        if told == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("pscrub.commands.showing.Bar.progress", interrupt)
    assert main(["run", file, "--draws", str(4 * ROUND), "--draws-only", "--json", "-P", "both=1"]) == 130
    document = json.loads(capsys.readouterr().out)
    (row,) = document["rows"]
    assert document["cut_short"] and row["cut_short"] and row["draws"] == 2 * ROUND
    told = 2
    assert main(["run", file, "--draws", "50", "--json"]) == 130
    out, err = capsys.readouterr()
    assert out == "" and "interrupted before there was an estimate" in err


def test_an_interrupt_that_a_destructor_swallows_is_raised_again(capsys: pytest.CaptureFixture[str]) -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it
    try:
        with interrupts_kept() as raise_again:
            raise_again()
            Dying()
            with pytest.raises(KeyboardInterrupt):
                raise_again()
            assert raise_again.status == 130 and capsys.readouterr() == ("", "")  # nor is there a traceback
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with interrupts_kept():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_an_interrupt_leaves_half_made_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    class HalfMade:
        def __init__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            self.file = 1

        def __del__(self) -> None:
            assert self.file  # as a file of scipy's, which looks at what it was not given yet

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interrupts_kept() as interrupts:
            with suppress(KeyboardInterrupt):
                HalfMade()
            assert interrupts.status == 130 and capsys.readouterr() == ("", "")
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_failing_node_is_one_line_and_keeps_what_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "failing.py", tmp_path / "kept"
    text = STUDY.replace("lambda out, label: (out - label) ** 2", "failing").replace("def study(", FAILS + "def study(")
    path.write_text(text)
    assert main(["run", str(path), "--draws", "50", "-P", "both=yes", "--out", str(out)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        "pscrub: hypothesis 'nothing': node 'loss' fails on 'out' float32[50], 'label' float32[50]: "
    )
    assert "RuntimeError: the second time (at " in line and "failing.py:" in line
    assert line.endswith("; kept: 'sign' (50 draws)")
    kept = pscrub.StudyResult.load(out)
    assert kept.cut_short and [each.hypothesis for each in kept.results] == ["sign"]


# list and show


def test_list_names_the_shipped_studies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"brackets\s+\S.{20,}", line) for line in lines)


def test_the_lines_of_list_are_the_modules_first() -> None:
    """They are read from the files, since importing the studies takes seconds."""
    modules = {name: importlib.import_module(f"pscrub.studies.{module}") for name, module in SHIPPED.items()}
    assert shipped() == {name: str(module.__doc__).split("\n")[0] for name, module in modules.items()}


def test_show_prints_the_trees(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", file, "-P", "both=1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"first: .*2 blocks of \d+ to \d+ rows.*row \d+", out)
    assert "unimportant, one draw for out" in out and out.count("loss: ") == 2
    assert main(["show", file, "-P", "both=1"]) == 0
    assert capsys.readouterr().out == out


def test_names_with_brackets_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "marked.py"
    path.write_text(STUDY.replace('"sign": pscrub', '"[bold]h[/bold] [0]": pscrub').replace('"out"', '"out[x]"'))
    assert main(["show", str(path), "-P", "both=1"]) == 0
    shown = capsys.readouterr().out
    assert "[bold]h[/bold] [0]" in shown and "one draw for out[x]" in shown
    assert main(["run", str(path), "--draws", "50"]) == 0
    assert "[bold]h[/bold] [0]" in re.sub(r"\s+", " ", capsys.readouterr().out)


# Bad input


def test_an_unknown_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no study 'bracket'; did you mean \"brackets\"" in refused(capsys, "run", "bracket")
    assert "study file 'nowhere.py' does not exist" in refused(capsys, "show", "nowhere.py")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n\nraise ValueError('first\\nsecond')", ["raised ValueError at line 3", "first second"]),
        ("def study():\n    x = 1\n    return x / 0", ["raised ZeroDivisionError at line 3"]),
        ("import pscrub\n\ndef study():\n    return pscrub.Dataset({})", ["at least one column", "bad.py", "line 4"]),
        ("def study(:\n    pass", ["SyntaxError", "line 1"]),
        ("import nothing_of_that_name", ["ModuleNotFoundError at line 1"]),
        ("raise SystemExit(0)", ["raised SystemExit at line 1"]),
        ("open('/nowhere/at/all')", ["line 1", "/nowhere/at/all"]),
        ("def study():\n    return 3", ["returned int; expected a pscrub.Study"]),
        ("def study():\n    pass", ["returned NoneType"]),
        ("study = 3", ["defines no function study()"]),
        ("", ["defines no function study()"]),
        ("def study(rows):\n    pass", ["TypeError", "rows"]),
        ("def study(rows: 'Nowhere' = 3):\n    pass", ["NameError", "Nowhere"]),
        ("import pscrub\n\ndef study():\n    return pscrub.Study('s', [])", ["has no hypotheses"]),
    ],
)
def test_a_study_file_that_raises_or_returns_no_study(
    text: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    line = refused(capsys, "run", str(path), "--draws", "10")
    for each in words:
        assert each in line


def test_a_hypothesis_with_faults_lists_them_in_one_line(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "run", file, "-P", "where=frist")
    assert "hypothesis 'sign'" in line and "unknown node 'frist'; did you mean \"first\"" in line
    assert "unknown node 'frist'" in refused(capsys, "show", file, "-P", "where=frist")


def test_missing_weights(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "run", "brackets", "-P", "weights=nowhere.safetensors")
    assert "nowhere.safetensors" in line


def test_weights_of_another_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"layer.weight": torch.zeros(3, 3), "embed.W_E": torch.zeros(7, 56)}, path)
    line = refused(capsys, "run", "brackets", "-P", f"weights={path}")
    for words in ("unexpected layer.weight", "embed.W_E has shape [7, 56], expected [5, 56]", "missing unembed.W_U"):
        assert words in line


def test_weights_that_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "words.safetensors"
    path.write_text("words")
    assert "words.safetensors cannot be read as safetensors" in refused(
        capsys, "run", "brackets", "-P", f"weights={path}"
    )


def test_an_output_folder_that_cannot_be_written(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    for folder in (taken, taken / "below"):
        line = refused(capsys, "run", file, "--draws", "10", "--out", str(folder))
        assert f"cannot write to output folder '{folder}'" in line
    assert taken.read_text() == "a file"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--draws", "0"], "draws is 0; expected at least 1"),
        (["--draws", "-5"], "draws is -5; expected at least 1"),
        (["--until-width", "0"], "until-width is 0.0; expected a positive number"),
        (["--until-width", "nan"], "until-width is nan"),
        (["--seed", "-1"], "seed is -1; expected 0 or more"),
        (["--device", "gpu"], "unknown or unusable device 'gpu'"),
        (["--device", "cuda:99"], "unknown or unusable device 'cuda:99'"),
        (["--device", "meta"], "unknown or unusable device 'meta'"),
        (["--device", ""], "unknown or unusable device ''"),
        (["-P", "rows"], "-P rows: expected name=value"),
        (["-P", "=3"], "-P =3: expected name=value"),
        (["-P", "rows=many"], "rows='many' of study"),
        (["-P", "both=maybe"], "both='maybe' of study"),
        (["-P", "row=3"], "no parameter 'row'; did you mean \"rows\""),
        (["-P", "rows=0"], "empty"),
    ],
)
def test_options_that_make_no_sense(
    options: list[str], words: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, "run", file, *options)


UNTYPED = """
import torch
import pscrub

print("made by", __name__)


def study(n=7, scale=1, word="w", on=False, free=None, more: "int | None" = None):
    print(type(n).__name__, type(scale).__name__, word, on, type(free).__name__, free)

    def loss(x):
        print("a node speaks")
        return 1.0 * x

    data = pscrub.Dataset({"x": torch.arange(4 * n) % 4})
    graph = pscrub.Graph.of({"s": lambda x: x % 2, "f": lambda s, x: loss(s) + x}, ["x"], "f")
    claim = pscrub.Claim("f", reads=[pscrub.Claim("s", lambda d: d["x"] % 2)])
    return pscrub.Study("says", [pscrub.Hypothesis("a|b", graph, data, claim)], labels=["x"], features={"x": "x"})
"""
"""A study that prints when it is loaded, when it is made and when it runs, and whose parameters have no types."""


@pytest.fixture
def untyped(tmp_path: Path) -> str:
    path = tmp_path / "says.py"
    path.write_text(UNTYPED)
    return str(path)


def test_a_study_that_prints_does_not_corrupt_the_answer(untyped: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["run", untyped, "--draws", "64", "--claims", "16"], ["verify", untyped, "--draws", "64"]):
        assert main([*command, "--json"]) == 0
        out, err = capsys.readouterr()
        json.loads(out)
        assert "made by" in err and "a node speaks" in err
        assert main(command) == 0
        assert "speaks" not in capsys.readouterr().out
    for question in (["show"], ["show", "--plan"], ["sharing", "--draws", "64"], ["ablations", "--draws", "64"]):
        assert main([question[0], untyped, *question[1:]]) == 0
        out, err = capsys.readouterr()
        assert "made by" in err and "made by" not in out and "speaks" not in out and out.strip()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("n=8", "int int w False NoneType None"),
        ("scale=0.5", "int float w False"),
        ("on=yes", "int int w True"),
        ("word=3", "int int 3 False"),
        ("free=3", "False int 3"),
        ("free=-2.5", "False float -2.5"),
        ("free=1e3", "False float 1000.0"),
        ("free=true", "False bool True"),
        ("free=none of these", "False str none of these"),
        ("free=inf", "False str inf"),
    ],
)
def test_parameters_without_annotation(given: str, told: str, untyped: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", untyped, "-P", given]) == 0
    assert told in capsys.readouterr().err
    assert main(["show", untyped, "-P", "n=many"]) == 2
    assert "parameter n='many'" in capsys.readouterr().err


def test_bars_in_names_do_not_break_the_table(untyped: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", untyped, "--draws", "64", "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    rows = [line for line in (tmp_path / "out" / "table.md").read_text().splitlines() if line.startswith("| ")]
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}
    assert len(rows) == 3 and len(bars) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["adversary", "--at", "typo"], "no claim or node 'typo' to try claims at"),
        (["adversary", "--at", "frst"], 'did you mean "first"'),
        (["adversary", "--steps", "0"], "steps is 0; expected a whole number, 1 or more"),
        (["adversary", "--draws", "0"], "draws is 0; expected at least 1"),
        (["adversary", "--draws", "2"], "draws is 2; expected a whole number, 4 or more"),
        (["adversary", "--level", "95"], "level is 95; expected between 0 and 1; try 0.95"),
        (["adversary", "--held-out", "1"], "held_out is 1.0; expected 0 to 0.9"),
        (["adversary", "--rows", "0"], "rows is 0; expected 1 or more"),
        (["frontier", "--draws", "-1"], "draws is -1; expected at least 1"),
        (["sharing", "--level", "0"], "level is 0; expected between 0 and 1"),
        (["ablations", "--seed", "-1"], "seed is -1; expected 0 or more"),
    ],
)
def test_questions_that_make_no_sense(
    options: list[str], words: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, options[0], file, *options[1:])


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pscrub.questions import specificity

    monkeypatch.setattr(specificity, "frontier", lambda *_, **__: pytest.fail("the work was done"))
    taken = tmp_path / "taken"
    taken.write_text("a file")
    line = refused(capsys, "frontier", file, "--out", str(taken / "below.svg"))
    assert f"cannot write to output folder '{taken}'" in line
    assert "it is a folder; name a file" in refused(capsys, "frontier", file, "--out", str(tmp_path))


def test_the_installed_command(tmp_path: Path) -> None:
    """In a process of its own: the entry point, the exit status and what stands on which stream."""
    path = tmp_path / "bad.py"
    path.write_text("raise ValueError('no')")
    code = textwrap.dedent("import sys; from pscrub.cli import main; sys.exit(main(sys.argv[1:]))")
    command = [sys.executable, "-c", code, "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(pscrub.__file__).parents[1])
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"pscrub: study file '{path}' raised ValueError at line 1: no\n"
