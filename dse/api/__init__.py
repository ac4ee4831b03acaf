"""The Python API: `dse.search` and `dse.load`; `import dse` has its names."""
