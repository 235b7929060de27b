"""The induction study: a two-layer attention-only transformer, and a ladder of claims about how it repeats what it saw.

`study` is the study; `model` the architecture and its shipped weights, which `train` trained on `text`; `heads` finds
heads by measuring, and `measured` prints what was found; `graphs` its graph with heads' queries, keys and values as
nodes; `ladder` the hypotheses. `composed` is a study of its own, of SmolLM2's induction heads.
"""
