"""Methods written as Python files for those who train with other libraries."""
