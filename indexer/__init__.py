"""A model and images in, an index directory out: features, what they belong to, and the search among them."""
