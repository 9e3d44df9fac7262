"""The four studies as recipes, and what any store says about ability and loss."""
