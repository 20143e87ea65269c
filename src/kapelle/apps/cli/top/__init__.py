"""`kapelle top`: the fleet on one screen, live. Textual is loaded by ``screen`` and ``dialogs`` alone."""
