"""From a model and images to an index directory, and the search of it."""
