"""``python -m kapelle``: the command line."""

from kapelle.apps.cli.main import main

if __name__ == "__main__":
    main()
