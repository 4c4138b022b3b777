"""One file per benchmark: read the files as users download them, ask, score as the official scripts do and strictly."""
