"""Few measurements of a device, and what they correct."""
