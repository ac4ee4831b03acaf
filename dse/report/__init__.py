"""The front to people: tables, figures, one self-contained HTML page. Reads run folders only."""
