"""What the command line's commands do: each takes its options and gives the exit status, and prints.

`load_study` makes the study that `add_study_options` had named; `QUESTIONS` are the commands that ask one thing of it.
"""

from pscrub.commands.questions import QUESTIONS
from pscrub.commands.studies import add_study_options, load_study

__all__ = ["QUESTIONS", "add_study_options", "load_study"]
