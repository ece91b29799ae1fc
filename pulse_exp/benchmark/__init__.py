"""How fast a step is, how fast it could be, and what a face costs: `python -m pulse_exp.benchmark`.

`counts` counts the work of a step, `ceilings` measures what the machine can do, `steps` measures
steps side by side, `whole_search` what a search adds to them. `networks` makes the generators, of
their published sizes with random weights, and the plain baseline.
"""
