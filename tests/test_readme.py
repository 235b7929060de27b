"""The README's example runs as it stands, and its commands are the Makefile's."""

import json
import re
from pathlib import Path

from pscrub.cli import main

README = Path(__file__).parents[1] / "README.md"


def test_the_example_study_runs(tmp_path: Path, capsys) -> None:
    (code,) = re.findall(r"```python\n# sums\.py\n(.*?)```", README.read_text(), re.DOTALL)
    study = tmp_path / "sums.py"
    study.write_text(code)
    assert main(["run", str(study), "--draws", "2000", "--json", "-P", "rows=500"]) == 0
    rows = {row["hypothesis"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["hidden holds x1 + x2"]["recovered"] > 99
    assert rows["hidden holds x1"]["high"] < 80


def test_the_two_commands_are_targets() -> None:
    commands = re.findall(r"^make (\w+)", README.read_text(), re.MULTILINE)
    targets = re.findall(r"^(\w+):", (README.parent / "Makefile").read_text(), re.MULTILINE)
    assert commands == ["report", "test"] and set(commands) <= set(targets)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text())
    assert links and [link for link in links if not (README.parent / link).exists()] == []
