"""The table: rows of cells under a heading, as text, Markdown, HTML, or for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True, repr=False)
class Table:
    """Rows of cells under a heading.

    Args:
        head: names of the columns.
        rows: cells, as they are to be read.
        words: how many columns, from the left, hold words; the others hold figures, and are flush right.
        title: what to put above it for a terminal.

    >>> table = Table(("hypothesis", "recovered %"), (("a|b", "97.13"),))
    >>> table
    hypothesis  recovered %
    a|b               97.13
    >>> print(table.markdown())
    | hypothesis | recovered % |
    | --- | ---: |
    | a\\|b | 97.13 |
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    title: str = ""

    def __repr__(self) -> str:
        return f"{self.title}\n\n{self.text()}" if self.title else self.text()

    def _repr_html_(self) -> str:
        title = f"<p><strong>{escape(self.title)}</strong></p>" if self.title else ""
        return title + self.html()

    def text(self) -> str:
        """The table in plain lines."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        aligned = ["<" if i < self.words else ">" for i in range(len(self.head))]
        return "\n".join(
            "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(line, aligned, widths, strict=True)) for line in lines
        )

    def markdown(self) -> str:
        """The table as Markdown, a line a row whatever cells hold: their own bars are escaped, line ends are blanks."""
        rule = ["---" if i < self.words else "---:" for i in range(len(self.head))]
        cells = [[_in_a_cell(cell) for cell in line] for line in (self.head, *self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], rule, *cells[1:]))

    def html(self) -> str:
        """The table as HTML."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.head)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def rich(self) -> Any:
        """The table for a terminal, a `rich.table.Table`."""
        from rich import box  # a notebook, which shows HTML, need not wait for it
        from rich.markup import escape as plainly
        from rich.table import Table as RichTable

        title = plainly(self.title) if self.title else None
        out = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
        for i, name in enumerate(self.head):
            justify: Any = "left" if i < self.words else "right"
            out.add_column(plainly(name), justify=justify, overflow="fold", min_width=10 if i == 0 else None)
        for line in self.rows:
            out.add_row(*map(plainly, line))
        return out


def _in_a_cell(text: str) -> str:
    # After a backslash of the cell's own, the one that escapes would itself be escaped.
    return " ".join(text.splitlines()).replace("\\|", "\\&#124;").replace("|", "\\|")


def say_loss(value: float) -> str:
    """A loss to four places, or as many as show anything."""
    if 0 < abs(value) < 5e-4:
        return f"{value:.1e}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"
