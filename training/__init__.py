"""Labelled images in, a model directory out: the networks, their recipes, and the way every image takes to become a square."""
