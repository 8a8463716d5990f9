"""How better tables are proposed: spaces, searchers, methods, and the jobs that run and compare them."""
