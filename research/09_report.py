# %% [markdown] id="report"
# # 9 What is the answer?
#
# **Reads** everything. **Leaves** the run folder, complete.
#
# This run, in sentences that it computes itself.

# %%
entries = evaluation["methods"]
sentences = [verdict["sentence"] for verdict in audited["verdicts"].values() if verdict["explained"]]
sentences += [
    f"On {evaluation['n_normal']} normal and {evaluation['n_abnormal']} abnormal test images (labels: {evaluation['labels']}), "
    + " and ".join(
        f"{name} reached AUROC {e['auroc']['value']:.3f} [{e['auroc']['low']:.2f}, {e['auroc']['high']:.2f}]"
        for name, e in entries.items()
    )
    + "."
]
sentences += [f"{difference_text(difference)}." for difference in evaluation["differences"]]
sentences += [verdict["sentence"] for verdict in audited["verdicts"].values() if not verdict["explained"]]
sentences.append(f"Patient separation: {results['patient_separation']}.")
if source.synthetic:
    sentences.append(f"These are {SYNTHETIC}.")
display(Markdown(" ".join(sentences)))

# %% [markdown]
# The published runs stand in [chapter 7](07_what_matters.py).

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
