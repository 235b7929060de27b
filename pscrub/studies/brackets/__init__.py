"""The bracket study: a small transformer that tells balanced brackets, and a ladder of claims about how.

`study` and `heads` are the studies; `model` the architecture and its shipped weights, which `train` trained; `features`
what may be claimed of a string; `graphs` the model's graph in heads and positions; `ladders` the hypotheses.
"""
