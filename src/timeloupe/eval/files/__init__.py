"""Reading annotation and prediction files in the layouts that they are handed round in; layouts are told by content."""
