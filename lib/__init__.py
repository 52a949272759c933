"""The library behind the chapters in `research/`: ten files and seven rooms, each importing only from those above it.

strict_yaml     YAML as a person reads it; what it would misread is refused by line
privacy         what others may see: addresses without secrets, paths without names
refusals        the sentences in which a wrong setting is refused
contradictions  settings that cannot stand together, and what to write instead
choices         settings whose words are the keys of a dictionary further down
params          the settings of a run: one typed, frozen model that refuses wrong ones by name
files           files written as a whole or not at all, by one process at a time
network         addresses, and what went wrong on the network, in words that say what to do
environment     the packages that the notebook needs; installs missing ones, but never torch
allocator       freed memory stays with the process
data            where images come from -> prepared uint8 arrays -> a patient-safe, normal-only split
methods         the core: the contract, shared blocks, U-Net, RA, the named variants, one training loop
scores          reconstructions -> anomaly maps -> image scores; references; model selection without labels
evidence        scores and labels -> metrics with intervals, audit, localisation, claims: typed results
figures         arrays and results -> matplotlib figures and tables
runs            the run folder, its stages, tracking, comparison, sweeps, the report, the command line
notebook        chapters and library -> the notebook
"""
