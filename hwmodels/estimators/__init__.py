"""Cost estimators, a folder each, behind one protocol (`base`), by name (`registry`)."""
