"""One page on a run: what its folder holds, words, charts, page."""
