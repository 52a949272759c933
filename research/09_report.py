# %% [markdown] id="report"
# # 9 What is the answer?
#
# **Reads** everything. **Leaves** the run folder, complete. **Draws** nothing.
#
# This run, in sentences that it computes itself.

# %%
entries = evaluation["methods"]
sentences = [verdict["sentence"] for verdict in results["audit"]["verdicts"].values() if verdict["explained"]]
sentences += [
    f"On {evaluation['n_normal']} normal and {evaluation['n_abnormal']} abnormal test images (labels: {evaluation['labels']}), "
    + " and ".join(
        f"{name} reached AUROC {e['auroc']['value']:.3f} [{e['auroc']['low']:.2f}, {e['auroc']['high']:.2f}]"
        for name, e in entries.items()
    )
    + "."
]
sentences += [f"{difference_text(difference)}." for difference in evaluation["differences"]]
display(Markdown(" ".join(sentences)))

# %% [markdown]
# ## What may be said of it, and what may not
#
# By rule, from the numbers alone: the same lists stand in `results.json`, under `claims`, where a program can read them. The rules
# are in `lib/claims.py`.

# %%
from lib.report import claimed

display(Markdown(f"**This run may say that**\n\n{claimed(results, 'may')}"))
display(Markdown(f"**This run may not say that**\n\n{claimed(results, 'may_not')}"))

# %% [markdown]
# The published runs stand in [chapter 7](07_what_matters.py). Every table of these pages is a file in `tables/`, every figure one in
# `figures/`.

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
