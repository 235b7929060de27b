"""The modular addition study: a small transformer that adds modulo 113, and a ladder of claims about how.

`study` is the study; `model` the architecture and its shipped weights, which `train` trained; `frequencies` what is
measured of it, and `pictures` draws that; `graphs` its graph rewritten into frequencies; `ladder` the hypotheses.
"""
