"""`python -m catheters COMMAND`, as `catheters COMMAND`."""

from catheters.commands.console import main

if __name__ == "__main__":
    main()
