"""The reader's secrets, from the JSON file that COLAB_SECRETS names."""

import json
import os
from pathlib import Path

from google.colab.errors import Error


class NotebookAccessError(Exception):
    pass


class SecretNotFoundError(Error):
    pass


def get(key):
    secrets = json.loads(Path(os.environ["COLAB_SECRETS"]).read_text())
    if key not in secrets:
        raise SecretNotFoundError(f"Secret {key} does not exist.")
    return secrets[key]
