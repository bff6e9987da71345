"""Numbers and arrays: dtypes, norms, products, factorizations, the time axis. Knows no cell."""
