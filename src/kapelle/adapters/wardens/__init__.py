"""Where agents' programs ask before they do something."""
