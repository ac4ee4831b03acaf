"""The operator table: one plain torch function per operator and version."""
