"""How accurate a pruned network is, and what it costs to find out.

An `Evaluator` holds a network and its images on a device and judges keep masks: importance scores
come from search-train, accuracy from search-val, and each look at test is counted. Knows nothing of
steps, actions or budgets. Begin with `evaluator.py`; `execution.py` runs candidates, `importance/`
ranks channels, `recovery/` re-estimates batch-norm statistics or fine-tunes after a cut.
"""
