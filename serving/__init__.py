"""The service: HTTP on the request path, the console, the in-process client."""
