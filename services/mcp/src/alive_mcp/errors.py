"""What goes wrong and is said in words."""


class Misconfigured(Exception):
    """The environment does not say for whom and where the tools act; the text is one line."""


class Refused(Exception):
    """A tool cannot do what it was asked; the text is a sentence that the model can act on."""
