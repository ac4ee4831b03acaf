"""Prices of every region under every choice, so that an assignment costs a look-up."""
