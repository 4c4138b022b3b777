"""Messages out, replies in: protocol presets, building and parsing. Pure functions, no model, no video."""
