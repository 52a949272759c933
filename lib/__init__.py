"""What the chapters in `research/` share, in import order: a module imports only from those above it.

environment   what a kernel has of what the notebook needs; what is missing is installed, torch never
files         a file is there whole or not at all; one process at a time makes it
keeping       copies of a run's files in a folder that outlives the machine, and back at a new start
method        the contract: child modules that train, `moves(images)`, `reconstruct(images)`
params        a run's settings: one typed, frozen model; what is wrong is refused by name
phantom       the embedded default: synthetic chest radiographs with exact lesion masks
source        the contract of a source of images, and what may be wrong with them
decoding      a file's bytes -> one grey image, DICOM included, or the reason why not
kaggle        a data set of Kaggle on this machine, whole, or what to do to get it
registry      the data sets that a run can name, what their labels mean and what they may be used for
stream        parquet shards anywhere, read while they arrive; and written from any other source
sources       where images come from: phantom, folder, Kaggle, shards; a table of records, the bytes of images
cache         images prepared once: a memory-mapped uint8 array and its journal
duplicates    films that are nearly the same
dataset       all images checked -> patient-safe, normal-only split with a manifest
blocks        layers that both methods share, so that they cannot differ by accident
unet          the U-Net autoencoder: network and objective
ra            the Reversed Autoencoder: encoder, decoder, objective
baselines     the small convolutional autoencoder of a published benchmark
arms          the methods that a run can name: one name, one way to build it
training      one loop for every method; a checkpoint after every epoch, exact resume
features      frozen ImageNet networks, and the perceptual distances that are built on them
references    rows that need no training loop: mean image, PCA, nearest neighbours in frozen features
scoring       reconstruction -> anomaly maps -> image scores, the same for every method
identity      how much of a pasted square does a method give back
uncertainty   metrics of a score and their intervals: bootstrap over patients, DeLong, several seeds; no torch
localisation  maps and lesion masks -> how well maps localise, beside a location prior; no torch
evaluation    scores, labels and metadata -> all numbers that are reported, by finding and stratum; no torch
audit         what else could explain a result: tags, trivial features, lungs and border, shared patients; no torch
conformal     normal films' scores -> p-values with a promised false alarm rate, also of several scores combined
psychometric  phantom films without and with a lesion of stated size and contrast -> how surely it is detected
claims        results -> what a run may say and what it may not, by rule
choosing      choosing without labels, by lesions painted into normal films
judging       a method's reconstructions -> all its scores, the chosen one, the combined one
figures       images and losses -> matplotlib Figure; never shows or saves
charts        scores and what was evaluated of them -> matplotlib Figure: curves with bands, forests
report        results -> tables, the summary in plain text
page          an executed notebook -> one HTML page that opens without network
runs          the run folder: status, parameters, metrics, results, tracking, the report
comparison    scores of runs that can be compared -> one table, evaluated, audited, with its claims
cli           `imgae-train`, `imgae-evaluate`, `imgae-run`, `imgae-shards`: thin fronts to the same functions
"""
