"""One program a question; each prints what it measured and keeps it in results/, with machine, versions, command and commit."""
