"""What Colab's own errors are derived from."""


class Error(Exception):
    pass
