"""The exact side of a search: knapsack, surrogate, front."""
