"""Circuits: area and energy of arithmetic, registers, SRAM and DRAM, at a node."""
