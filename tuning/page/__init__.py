"""Pages and figures: what the reports of a search and of a recipe are made of."""
