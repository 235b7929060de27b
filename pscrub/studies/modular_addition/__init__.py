"""The modular addition study: a small transformer that adds modulo 113, and a ladder of claims about how.

`study` is the study; `model` the architecture and its shipped weights, which `train` trained; `frequencies` measures
it, and `measured` prints what was found; `graphs` its graph rewritten into frequencies; `ladder` the hypotheses.
"""
