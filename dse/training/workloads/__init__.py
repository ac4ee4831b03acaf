"""Networks with their data, on which methods are tried."""
