"""Outcomes that are coded: the program asks what kind something is, people read what it says.

A warning, a method or a way to a baseline is a member of an enum, its value a code that is kept in files, its text the
message that figures are filled into. No line of pscrub looks into a message to decide anything: reword them all, and
every number stays.
"""

from __future__ import annotations

from enum import Enum
from typing import Any


class Said(str):
    """A sentence that knows of what kind it is; otherwise a text like any other, and equal to it.

    Args:
        text: the sentence.
        kind: the code of its outcome; "" where there is none.
        brief: the sentence without the figures of one case, for where several cases are summed up; the text itself if
            left out.
    """

    kind: str
    brief: str

    def __new__(cls, text: str, kind: str = "", brief: str | None = None) -> Said:
        made = super().__new__(cls, text)
        made.kind, made.brief = kind, str(text) if brief is None else brief
        return made

    @classmethod
    def of(cls, text: str) -> Said:
        """The text as one that has a kind, if only none."""
        return text if isinstance(text, Said) else cls(text)


class Outcome(Enum):
    """What enums of outcomes are made from: each member is a code, unique among all enums, and a message.

    >>> class Weather(Outcome):
    ...     RAIN = "rain", "rain: {mm:.1f} mm{more}"
    >>> said = Weather.RAIN.say(mm=3, more=Said(" in 2 hours", brief=""))
    >>> said, said.kind, said.brief
    ('rain: 3.0 mm in 2 hours', 'rain', 'rain: 3.0 mm')
    """

    text: str

    def __new__(cls, code: str, text: str) -> Outcome:
        made = object.__new__(cls)
        made._value_, made.text = code, text
        return made

    def say(self, **figures: Any) -> Said:
        """The message with its figures."""
        brief = {name: each.brief if isinstance(each, Said) else each for name, each in figures.items()}
        return Said(self.text.format(**figures), self.value, self.text.format(**brief))

    def wrap(self, method: str, **figures: Any) -> Said:
        """The message around another, `{method}` in its text, which keeps its own kind."""
        inner = Said.of(method)
        return Said(
            self.text.format(method=inner, **figures), inner.kind, self.text.format(method=inner.brief, **figures)
        )
