"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in a setting, a file or a command.

    Its message is one line that says where, what was found, what is expected and what to do. The scripts print it to
    stderr without a traceback and end with exit status 2.
    """
