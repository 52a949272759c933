"""The run folder and the stages that fill it: prepare, train, score, locate, evaluate, audit, draw.

In come settings; out goes a folder with checkpoints, scores, results, figures and tables. Nothing is computed here: the
stages call `methods`, `scores`, `evidence` and `figures`. Open `run.py` first, then the stages in the order of this
list.

keeping       copies of a run's files in a folder that outlives the machine
status        running, ok, failed or cut: one process works in a run folder, and decides
run           the run folder: paths, status, settings that may not change, whole files
tracking      experiment trackers behind one contract: none, Weights & Biases; the end of a run
freshness     what each stage has read and written, so that none runs again needlessly
prepare       a source's images -> checked, prepared, divided
memory        how much memory training takes at the least
capacity      whether the memory that is free suffices to train
timing        how long the stages will take on this machine
train         prepared images -> a trained method; `load` returns one that is trained already
candidates    every score that could have been chosen, as files
fitted        what was fitted on normal images, as a file
score         images and trained methods -> scores, without a label
places        where a model is found and files are left, before any library is loaded
layout        what lies where in a folder of scored images
model         a trained model that scores new images: of a run, or handed on
dicom_object  a residual map -> a DICOM object for the archive that its radiograph comes from
new_images    new images -> their scores, what these promise, and maps
comparison    a run's scores with those of the finished runs that it names
evaluate      locate, evaluate, audit: scores, maps and labels -> results
draw          scores and results -> the figures of the comparison
report        results -> the summary in plain text
template      the report's look
page          an executed notebook -> one HTML page that opens without network
command       what every command line has in common: a message in place of a traceback
archive       what a study reads of a run, checked; the files that are kept of a run for it
trials        trials of settings -> one table of their health
reproduction  studies -> the commands that make them again
results_page  studies -> docs/RESULTS.md: every table of research/results
sweep_table   runs of several settings and seeds -> one table, and how settings differ
onnx_file     a method's reconstruction -> an ONNX file, and what it wants and gives
card          a model -> what it is, how good, and what it is not for
shown         what a gallery shows of each image
shown_run     an evaluated run -> what is shown of its test images
labelled      scored images and a table of labels -> what it says of each, and AUROCs
shown_scores  scored images, and perhaps their labels -> what is shown of them
gallery       a run, or scored images -> one HTML page to look through, sort and filter
export        a run's model -> a folder that can be handed on
study         runs with different seeds -> a study; studies -> the page of all
seeds         a run of several seeds: those besides the first, and their study
grid          what a sweep varies -> the settings of each of its runs
sweep         many runs through joblib, on this machine or on a cluster
own_images    a reader's own images in the notebook
settings      a params file and `--set` -> the settings of a run
actions       what the commands do once their words are understood
cli           the words of `imgae-train`, `imgae-evaluate`, `imgae-run`, `imgae-score`, `imgae-shards`, `imgae-cache` …
"""
