"""`dse predict`: what its tables say beside latency."""
