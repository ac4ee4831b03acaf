"""Published low-precision systems as data: what expresses each here, and what it claims."""
