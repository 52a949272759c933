"""Scores and labels -> metrics with intervals, audit, localisation, claims: typed results.

In come scores, labels, maps and masks as arrays and tables; out come the records of `results.py`. Nothing here knows
torch, draws or writes a file. Open `evaluation.py` first.

record        the base of every type in results.json
marks         measures of a method on normal images -> whether it works, or what it lacks
results       what results.json holds, as types
wording       numbers and differences -> the text that sentences, tables and figures share
metrics       metrics of a score, for many weightings of the images at once
uncertainty   the bootstrap over patients, intervals, the mean over several seeds
delong        DeLong's variance of AUROCs and of their differences, without resamples
masks         masks of lesions, their regions, and where lesions usually lie
localisation  maps and lesion masks -> how well maps localise, beside a location prior
evaluation    scores, labels and metadata -> all numbers that are reported, by finding and stratum
seeds         the mean of a metric over runs with different seeds
learning      how well methods rank over their training, at equal images, equal CPU time, each at its end
ensembles     scores of several seeds, methods and references, joined without a label
study         runs with different seeds, taken together: means over seeds, differences, oracle, false alarms
curves        the data of charts: curves with bands, scores by group, false alarms against the promised rate
trivial       cues that need no network: tags of the records, image features; images without border or lungs
audit         what else could explain a result: tags, trivial features, lungs and border, shared patients
psychometric  phantoms without and with a lesion of known size and contrast -> how well it is detected
claims        results -> what a run may say and what it may not, by rule
"""
