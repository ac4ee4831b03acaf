"""The dataflow graph as plain, frozen data: nodes, values, constants, sites, assignments."""
