"""How the stack says that it cannot start or go on."""


class StackError(Exception):
    """The stack cannot start or go on; the text is for the person who must act."""
