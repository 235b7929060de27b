"""The study of the largest of four numbers: what is drawn under a hypothesis, and the worst that it permits, exactly.

`study` is the study; `model` the architecture and its shipped weights, which `train` trained; `ladder` its graph and
the hypotheses.
"""
