"""Everything that a machine with one GPU should prove about Lookalike, in 25 minutes."""
