"""What nodes are for, found by structure: attention, norms, experts, regions, sites."""
