"""Which decoder families can be pruned, found out by pruning a tiny model of each and comparing it with the base."""
