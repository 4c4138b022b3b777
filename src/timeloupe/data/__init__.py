"""Training and evaluation rows: building, converting and checking them."""
