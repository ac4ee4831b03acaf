"""The purpose of nodes, found by structure: attention, norms, experts, regions, sites."""
