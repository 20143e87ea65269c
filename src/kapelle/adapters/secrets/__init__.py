"""Where secrets are looked up, and the private directory from which agents read them."""
