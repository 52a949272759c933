"""Where images come from -> prepared uint8 arrays -> a patient-safe, normal-only split. Open `dataset.py` first.

In come a run's settings; out go three tables of records (training and validation hold only normal images, the test
side both kinds), the images of each as uint8 arrays (n, size, size), and the problems that were found. Labels are read
at the split and nowhere else.

source        the contract of a source of images, and what may be wrong with them
anatomy       the phantom's patients: a thorax of closed-form solids, and line integrals through it
phantom       synthetic radiographs of these patients, with exact lesion masks: the default source
picture       what decoding gives: a grey image, where it is padded, and its header, or the reason why not
dicom         a DICOM file -> a grey image as a viewer would show it
decoding      any file's bytes -> one grey image, or the reason why not
kaggle        a data set from Kaggle on disk, checked, or what to do to get it
registry      the data sets that a run can name, what their labels mean and what they may be used for
shard         one parquet shard's columns, whoever wrote it -> records and files
stream        parquet shards on any file system: read while they arrive, and written
classes       what a folder's name says about its images
labels        a table of labels -> one row an image, by the path of its file
folder        images in files: class folders, or a table
named         images as a user names them, before any library is loaded
unlabelled    images without labels: files, folders, shards
sources       a run's source: phantoms, a folder, Kaggle, shards
metadata      patient, age, sex, view and side in one notation, whatever the source writes
preparation   how an image becomes a square of grey levels
journal       which rows of a cache are finished, and intact
cache         images prepared once: a memory-mapped uint8 array and its journal
caches        the caches on this machine: which there are, and removing those that nobody uses
lesions       the lesions that a source marks, a bit a pixel
duplicates    pairs of images that are nearly the same
groups        which images count as one: those that share a patient, a file or a picture
dataset       prepared and checked images -> the split and its manifest
"""
