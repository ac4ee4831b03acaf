"""Operator tables: one measured or wanted operator a row, and the number types of their rows."""
