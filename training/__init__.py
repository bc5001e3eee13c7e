"""Train a model from labelled images: data sets, networks, recipes and training runs."""
