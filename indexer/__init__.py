"""Build an index directory from a model and images, and search it."""
