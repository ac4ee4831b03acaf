"""Commands on published systems."""
