"""The Python blocks of pages that say so run as they stand, in their order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pscrub.hypothesis.notation import read_script

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("circuits.md",)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_run(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)  # the page's own words
    told = capsys.readouterr().out
    if page == "circuits.md":
        lines = [line for line in names["IOI"].splitlines() if line.strip()]
        assert len(lines) == 7 and len(read_script(names["IOI"]).edges) == 11
    assert told.count("recovered %") == told.count("draws\n") > 3 and "nan" not in told
