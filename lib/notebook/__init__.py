"""Chapters and library -> the notebook. Open `chapter.py` first, then `kernel.py`.

In come the chapters as text, the files of `lib` and the settings model. Out goes one notebook that runs alone; where it
runs, the files lie in a private folder, and a cell can change one.

sources       what the builder and the running notebook call a cell and a module
cells         the running notebook's cells: which have run, where an error comes from
kernel        the running notebook's library: `%embed`, `%%embed`, reloads after an edit
setup         the notebook's setup cell, which unpacks the library
parameters    the parameters cell: generated from `Params`, and read back
chapter       a chapter: its cells, what it is refused for, what it takes over from those before it
links         links between chapters, and images
imports       the imports of chapters and library, refused where they cannot be followed
packing       the packed cell: the library and the results, one file a line
differences   what differs between a built notebook and its sources
pair          an .ipynb beside each chapter, for those who would rather edit there
"""
