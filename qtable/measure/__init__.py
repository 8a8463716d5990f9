"""Truth and evidence: evaluation, statistics, archive, fronts, intervals, summaries, clusters."""
