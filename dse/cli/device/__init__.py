"""`dse devices`: files of devices that are not in the list."""
