"""Run the notebooks of docs/ and keep their outputs, which the documentation shows.

python scripts/notebooks.py  # a minute: after a change of a notebook, or of what it shows
"""

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent.parent / "docs" / "notebooks"

LONGEST_S = 600
"""Of a cell: to end what hangs."""


def run(path: Path, directory: Path) -> NotebookNode:
    """A notebook with the outputs of a new run; its own file stays as it is.

    Args:
        path: of the notebook.
        directory: the kernel's.

    Raises:
        nbclient.exceptions.CellExecutionError: one of its cells ends in an error.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(directory)}}
    client = NotebookClient(notebook, timeout=LONGEST_S, resources=resources)
    # A backend that is asked for would keep figures from the notebook.
    return client.execute(env={name: s for name, s in os.environ.items() if name != "MPLBACKEND"})


def main() -> None:
    """Run them all."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = run(path, NOTEBOOKS)
        for cell in notebook.cells:
            cell.metadata.clear()  # when it was run
            if cell.cell_type == "code":  # the log and the warnings of this machine
                cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    main()
