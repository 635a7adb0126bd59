"""What seeds say: pure functions on arrays `(seeds,)` and `(variants, seeds)`.

`spread` describes values, `intervals` says how far a mean can be trusted, `paired` compares two
variants seed by seed, `matrices` reads confusion matrices, `probabilities` judges predicted
probabilities. They know no file, no table and no plot, and what is random in them takes its
generator from the caller. NaN stands for a seed without a value and is left out.

Methods: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(NeurIPS 2021); Bouthillier et al., "Accounting for Variance in Machine Learning Benchmarks"
(MLSys 2021).
"""
