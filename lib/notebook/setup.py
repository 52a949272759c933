# @title Set up: `%%unpack` turns the packed cell below into files; `%embed` lists them
"""The notebook's setup cell, to the byte.

It adds one name to the notebook, `Packed`, and depends on none: a reader may use any name for something else.
"""


class Packed:
    """A cell of packed files, one a line: name, number of lines, SHA-256 and text (bz2 in base 85)."""

    KERNEL = ("lib/notebook/sources.py", "lib/notebook/cells.py", "lib/notebook/kernel.py")  # keep the files

    @staticmethod
    def files(cell: str) -> dict[str, bytes]:
        """Return the files by name; ValueError names a file whose text does not match its hash."""
        import base64
        import bz2
        import hashlib

        files = {}
        for line in cell.splitlines():
            if line.strip() and not line.startswith("#"):
                name, _, digest, text = line.split()
                try:
                    files[name] = bz2.decompress(base64.b85decode(text))
                except (OSError, ValueError):
                    files[name] = b""
                if hashlib.sha256(files[name]).hexdigest()[: len(digest)] != digest:
                    raise ValueError(f"{name} is damaged in the packed cell: download the notebook again")
        return files

    def unpack(self, line: str, cell: str) -> None:
        """Write the files into a private folder, which lasts as long as the kernel; `kernel.py` then keeps them."""
        import importlib
        import sys
        import tempfile
        import types
        from pathlib import Path

        from IPython import get_ipython

        files = self.files(cell)
        if not hasattr(self, "library"):
            self.temporary = tempfile.TemporaryDirectory(prefix="imgae_dx_")
            folder = Path(self.temporary.name).resolve()
            (folder / "lib/notebook").mkdir(parents=True)
            for name in self.KERNEL:
                (folder / name).write_bytes(files[name])
            package = types.ModuleType("imgae_dx")  # lib.notebook by another name: no reload of lib reaches it
            package.__path__ = [str(folder / "lib/notebook")]
            sys.modules["imgae_dx"] = package
            self.library = importlib.import_module("imgae_dx.kernel").Library(get_ipython(), folder)
        self.library.unpack(files)


if __name__ == "__main__":
    from IPython import get_ipython

    if "unpack" not in get_ipython().magics_manager.magics["cell"]:  # a second run keeps the folder
        get_ipython().register_magic_function(Packed().unpack, "cell", "unpack")
