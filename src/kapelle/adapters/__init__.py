"""The world: one folder per port; families never import each other."""
