"""Containers of Docker and Podman as a sandbox."""
