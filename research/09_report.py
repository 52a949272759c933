# %% [markdown] id="report"
# # 9 What is the answer?
#
# **Reads** everything. **Leaves** the run folder, complete.
#
# The question was which of the two points at what a radiologist would call abnormal, by how much, and whether something simpler
# explains it. This run's answer, in sentences that it computes itself:

# %%
takes(9)
ranked = [
    f"{name} reached AUROC {e['auroc']['value']:.3f} [{e['auroc']['low']:.2f}, {e['auroc']['high']:.2f}]"
    for name, e in evaluation["methods"].items()
]
audited = results["audit"]["verdicts"].values()
answers = [
    f"**Which?** On {evaluation['n_normal']} normal and {evaluation['n_abnormal']} abnormal test images (labels: "
    f"{evaluation['labels']}) {'; '.join(ranked)}.",
    f"**By how much?** {' '.join(f'{difference_text(one)}.' for one in evaluation['differences']) or 'One method only.'}",
]
place = 0 if any(verdict["explained"] for verdict in audited) else 2  # what explains a result is said before it
answers.insert(place, f"**Could something simpler explain it?** {' '.join(one['sentence'] for one in audited)}")
if source.synthetic:
    answers.insert(0, f"**{SYNTHETIC}.**")
display(Markdown("\n\n".join(answers)))

# %% [markdown]
# ## What may be said of it, and what may not
#
# By rule, from the numbers alone: the same lists stand in `results.json`, under `claims`, where a program can read them. The
# rules are in `lib/claims.py`.

# %%
from lib.report import claimed

display(Markdown(f"**This run may say that**\n\n{claimed(results, 'may')}"))
display(Markdown(f"**This run may not say that**\n\n{claimed(results, 'may_not')}"))

# %% [markdown]
# ## The answer in one picture
#
# All rows of this run as chapter 7 draws the published ones. The dashed line is the strongest tag or feature that needs no
# network at all, the right way round: what lies left of it ranks no better than what could be had for less. The published runs
# stand in [chapter 7](07_what_matters.py). The tables of results are files in `tables/`; every figure from chapter 1 on is one
# in `figures/`.

# %%
rows = results["rows"]["methods"]
trivial = [one for one in results["audit"]["rows"] if one["check"] in ("tag", "image") and one["away"]]
figure = Drawing(figsize=(10, 1.2 + 0.36 * sum("," not in row for row in rows)), layout="constrained")
ax = figure.subplots()
highest = draw_rows(ax, rows)
title = f"{origin}. Highest: {highest}, AUROC {rows[highest]['auroc']['value']:.2f}"
if trivial:
    strongest = max(trivial, key=lambda one: one["away"])
    ax.axvline(0.5 + strongest["away"], color="black", linestyle="--", linewidth=1)
    title += f"\nWithout any network: {strongest['what']}, {0.5 + strongest['away']:.2f}"
ax.set_title(title, fontsize=10)
display(run.save_figure(figure, "answer"))
run.finish()
