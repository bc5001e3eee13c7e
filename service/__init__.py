"""An HTTP API and a web page that answer queries from an index directory."""
