"""Indirect objects in SmolLM2-135M: "Then, Mary and John went to the store. John gave a drink to" goes on with Mary.

`study` is the study; `prompts` makes D; `heads` measures heads on other prompts; `ladder` the hypotheses.
"""
