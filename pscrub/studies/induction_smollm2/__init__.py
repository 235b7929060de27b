"""Induction in SmolLM2-135M: its heads found by measuring, and claims about what their keys, queries and values read.

`study` is the study; `heads` its rows and the heads found on them; `ladder` the hypotheses.
"""
