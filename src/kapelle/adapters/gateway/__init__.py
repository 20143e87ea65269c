"""The model gateway: a local reverse proxy that holds the credentials, counts and bounds, or rehearses."""
