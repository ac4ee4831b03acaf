"""The figures of the report, one noun a module."""
