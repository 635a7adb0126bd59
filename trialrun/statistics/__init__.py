"""Statistics over seeds: pure functions on arrays `(seeds,)` and `(variants, seeds)`.

`spread` describes values, `intervals` gives confidence intervals of means, `paired` compares two
variants seed by seed, `best` finds the variants that may be the best, `matrices` computes rates
from confusion matrices, `probabilities` scores predicted probabilities. They use no files, tables
or plots, and functions that need random numbers take a generator from the caller. NaN stands for a
seed without a value, and is left out.

Methods: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(NeurIPS 2021); Bouthillier et al., "Accounting for Variance in Machine Learning Benchmarks"
(MLSys 2021).
"""
