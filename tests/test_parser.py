"""What the parser of the command line refuses, and what its help lists."""

from __future__ import annotations

import re

import pytest

from pscrub.cli import main
from pscrub.estimate.stopping import ROUND


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["walk"],
        ["run"],
        ["run", "brackets", "--draws", "many"],
        ["run", "brackets", "--draws", "5", "--until-width", "1"],
        ["run", "brackets", "--colour"],
        ["show", "brackets", "--json"],
    ],
)
def test_what_argparse_refuses(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and "error: " in err.splitlines()[-1]


def test_help_lists_the_commands_and_each_ones_options(capsys: pytest.CaptureFixture[str]) -> None:
    def told(*argv: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main([*argv, "--help"])
        assert caught.value.code == 0
        return " ".join(capsys.readouterr().out.split())

    for command, options in OPTIONS.items():
        assert command in told()
        shown = told(command)
        assert shown.startswith(f"usage: pscrub {command} [-h]")
        usage = re.split("options:|positional arguments:", shown)[0]
        assert set(re.findall(r"--[a-z-]+|-P", usage)) == set(options.split())
        assert ("STUDY" in shown) == ("--seed" in options)
    assert "(default: 4,096)" in told("run") and f"(default: {ROUND:,})" in told("sharing")


OPTIONS = {
    "run": "--draws --until-width --interval --bounds --donors --data-uncertainty --clusters --device --out "
    "--fresh --workers --shard --tries --without-damaged --after --by --claims --draws-only --measures --json --label "
    "--seed -P",
    "sweep": "--out --seeds --hypothesis --together --label --draws --until-width --draws-only --interval --bounds "
    "--donors --data-uncertainty --clusters --device --workers --shard --without-damaged -P",
    "status": "--watch",
    "merge": "--out --without-damaged",
    "report": "--without-damaged",
    "list": "",
    "show": "--plan --label --seed -P",
    "verify": "--draws --json --label --seed -P",
    "adversary": "--no-data --at --clusters --steps --per-bit --held-out --rows --hypothesis --draws --level "
    "--markdown --label --seed -P",
    "frontier": "--out --draws --level --markdown --label --seed -P",
    "resolution": "--claim --bins --by --offsets --out --json --hypothesis --draws --level --markdown --label --seed "
    "-P",
    "sharing": "--hypothesis --draws --level --markdown --label --seed -P",
    "ablations": "--partner --hypothesis --draws --level --markdown --label --seed -P",
    "pessimal": "--limit --hypothesis --markdown --label --seed -P",
}
"""Each command, and the options that it takes."""
