"""From labelled images to a model directory: data sets, networks, recipes and training."""
