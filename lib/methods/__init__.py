"""The core: a contract, networks that share their blocks, and one training loop. Open `method.py` first.

In come prepared uint8 images (n, height, width) of normal radiographs; out go trained methods, their checkpoints and
reconstructions in [0, 1]. Nothing here sees a label or a file format other than the checkpoint, and only `variants.py`
knows the methods by name. `diff unet.py ra.py` shows the scientific difference.

method        the contract: child modules that train, `moves(images)`, `reconstruct(images)`
blocks        layers that U-Net and RA share
unet          the U-Net autoencoder: network and objective
ra            the Reversed Autoencoder: encoder, decoder, objective
autoencoder   the small convolutional autoencoder of a published benchmark
variants      the methods that a run can name, and how each is built
checkpoint    the file that training resumes from, and the weights kept from earlier epochs
training      one loop for every method, exact resume, the cost of training
"""
