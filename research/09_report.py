# %% [markdown] id="report"
# # 9 What is the answer?
#
# **Reads** everything. **Leaves** the run folder, complete.
#
# First this run, in three sentences that it computes itself; then the published ones.

# %%
entries = evaluation["methods"]
sentences = [
    f"On {evaluation['n_normal']} normal and {evaluation['n_abnormal']} abnormal test images (labels: {evaluation['labels']}), "
    + " and ".join(
        f"{name} reached AUROC {e['auroc']['value']:.3f} [{e['auroc']['low']:.2f}, {e['auroc']['high']:.2f}]"
        for name, e in entries.items()
    )
    + "."
]
sentences += [f"{difference_text(difference)}." for difference in evaluation["differences"]]
sentences.append(
    f"The best trivial score ({best}) lies {away:.3f} from chance; patient separation: {results['patient_separation']}."
)
if source.synthetic:
    sentences.append(f"These are {SYNTHETIC}.")
display(Markdown(" ".join(sentences)))

# %% [markdown]
# ## Published runs
#
# The results of runs on real films, as they were written by the run that is named, and carried along in this notebook.

# %%
import json
from pathlib import Path

import lib

published = sorted((Path(lib.__file__).parents[1] / "research/results").glob("*.json"))
for file in published:
    theirs = json.loads(file.read_text())
    display(Markdown(f"**{file.stem}**, labels: {theirs['evaluation']['labels']}, {theirs['image_size']} px"))
    display(results_table(theirs["evaluation"]))
    display(budget_table(theirs))
    print(*map(difference_text, theirs["evaluation"]["differences"]), sep="\n")

# %%
run.finish()
pd.DataFrame(
    {
        "size in bytes": {
            str(p.relative_to(run.folder)): p.stat().st_size
            for p in sorted(run.folder.rglob("*"))
            if p.is_file() and "wandb" not in p.parts
        }
    }
)
