"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in a setting, a file or a command.

    Its message is one line that says where, what was found, what is expected and what to do. The scripts print it to
    stderr without a traceback and end with exit status 2.
    """


def one_line(error: Exception, max_length: int = 300) -> str:
    """A library's message as a part of one line of ours: no line breaks, and not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= max_length else text[: max_length - 3] + "..."
