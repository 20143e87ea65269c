"""One module per migration, never changed once it was released."""
