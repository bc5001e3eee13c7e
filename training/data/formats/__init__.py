"""Checks of image files, one module per format. They read only headers and decode nothing.

docs/security.md lists what is refused.
"""
