"""The ten tasks of the benchmark of Lueckmann, Boelts, Greenberg, Goncalves and Macke 2021, arXiv:2101.04653.

Written anew from the definitions, which are in its appendix T, with the constants of its package sbibm 1.1.0 wherever
reference posteriors depend on them. One simulation is one observation x, the vector of sbibm, even where that is made
of independent draws. `benchmarks/sbibm.py` compares posteriors with the references.
"""
