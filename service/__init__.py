"""Answers over HTTP what an image is and what it looks like, from an index directory; and a web page. No torch here."""
