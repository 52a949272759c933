"""What the chapters in `research/` share, in import order: a module imports only from those above it.

files       a file is there whole or not at all
method      the contract: child modules that train, `moves(images)`, `reconstruct(images)`
params      a run's settings: one typed, frozen model; what is wrong is refused by name
phantom     the embedded default: synthetic chest radiographs with exact lesion masks
sources     where images come from: phantom or folder; a table of records, one image at a time
dataset     records -> patient-safe, normal-only split with a manifest -> uint8 images
blocks      layers that both methods share, so that they cannot differ by accident
unet        the U-Net autoencoder: network and objective
ra          the Reversed Autoencoder: encoder, decoder, objective
training    one loop for every method; a checkpoint after every epoch, exact resume
scoring     reconstruction -> residual map -> image score, the same for every method
evaluation  scores and labels -> AUROC and the rest, with intervals; no torch
figures     data -> matplotlib Figure; never shows or saves
runs        the run folder: status, parameters, metrics, results, tracking, the report
cli         `imgae-train`, `imgae-evaluate`, `imgae-run`: thin fronts to the same functions
"""
