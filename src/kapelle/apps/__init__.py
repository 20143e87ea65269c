"""The doors: thin, and the one place (compose) that picks adapters."""
