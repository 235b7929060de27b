"""Curve detectors in HED's trunk: units of VGG16's conv3_3 that answer where a curve turns one way and no other.

`study` is the study; `images` draws the curves; `model` reads the weights; `tuning` measures channels and units on one
half of the images; `graphs` cuts what a unit reads; `ladder` the hypotheses; `measured` prints what was measured.
"""
