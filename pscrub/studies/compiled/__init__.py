"""The study of compiled programs: models whose circuit is known, since Tracr compiled them from it.

`study` is the study; `model` the shipped programs, which `make` compiled; `circuits` their edges, and claims about any
set of them; `graphs` the graph of one; `ladder` the hypotheses; `measured` counts pairs of sequences, edge by edge.
"""
