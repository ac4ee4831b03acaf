"""Control that is learned by trial: an environment, networks, soft actor-critic."""
