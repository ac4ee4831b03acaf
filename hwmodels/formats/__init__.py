"""Number formats as data: encodings, scaled blocks, quantizers; the catalogue names them."""
