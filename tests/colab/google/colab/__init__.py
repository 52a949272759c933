"""What the notebook, and the packages that it uses, ask of Colab: a folder for Google Drive, a file for the secrets."""

from google.colab import drive, errors, userdata

__all__ = ["drive", "errors", "userdata"]
