"""Answers over HTTP, and on a web page, from an index directory.

This package runs without torch.
"""
