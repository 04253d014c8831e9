"""The REST API of a real server, called over HTTP."""
