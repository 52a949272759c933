"""Arrays and results -> matplotlib figures and tables.

In come images, losses and what `lib.evidence` has computed; out come a `Figure` or a table. No statistic is computed
here, and nothing is shown or saved. Open `charts.py` first.

style         the figure that a notebook shows, the look of a method, panels
images        images, reconstructions and their residuals -> Figure
overlay       a map of one image -> pictures
compact       images, maps and marked lesions in few bytes, for a page of many images
networks      what networks carry and copy -> Figure
game          a variational autoencoder, its game and its reversal -> Figure
progress      how methods rank over their training -> Figure, table
normals       what methods do with normal images, over training -> Figure, table
charts        losses, evaluations, curves -> Figure
detection     where maps point, what choosing a score costs, which lesions are detected -> Figure
records       records of a split, settings -> tables to read
tables        results -> tables to read
studies       studies -> tables as text
ranking       all scores of studies, or of a run -> Figure
"""
