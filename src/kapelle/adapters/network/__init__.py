"""Ways out of sandboxes: a proxy that decides, and the sockets that lead to it."""
