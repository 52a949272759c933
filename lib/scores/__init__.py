"""Reconstructions -> anomaly maps -> image scores, and model selection without labels. Open `maps.py` first.

In come trained methods, prepared uint8 images by side (reference, lesions, validation, test) and their records; out go
scores, one float per image and score, and the choice of model selection for each method. No label is read here.

features      frozen ImageNet networks, and perceptual distances built on them
maps          an image and its reconstruction -> anomaly maps -> one number per map
scoring       trained methods -> reconstructions -> all scores, the same for every method
copying       how much of an image a network can carry, and how much of a pasted change it reconstructs
references    references that need no training loop: mean image, PCA, nearest neighbours in frozen features
health        a trained method -> how well it redraws normal chests, beside principal components
conformal     scores of normal images -> p-values with a guaranteed false alarm rate, one score or several
lesions       synthetic lesions painted into normal images, the criterion of model selection
selection     all scores of a method -> a chosen one, and several combined
likeness      whether a new image is like the normal images that a model was calibrated on
scorer        a trained method and what was fitted on normal images -> the scores of new images
"""
