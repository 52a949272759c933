# %% [markdown] id="limits"
# # 8 Where does it fail?
#
# **Reads** `table`, `made`, `images`. **Leaves** nothing.
#
# An average hides its worst cases. These are the abnormal films with the *lowest* scores (missed) and the normal ones with
# the *highest* (false alarms), for each method that this run has trained, with their reconstructions and error maps; the
# best cases stand beside them.

# %%
order = {kind: np.flatnonzero((test[params.labels] == kind).to_numpy()) for kind in ("normal", "abnormal")}
for name in trained:
    by_score = {kind: rows[np.argsort(test[name].to_numpy()[rows])] for kind, rows in order.items()}
    cases = {
        "found": by_score["abnormal"][::-1][:2],
        "missed": by_score["abnormal"][:2],
        "passed": by_score["normal"][:2],
        "false alarm": by_score["normal"][::-1][:2],
    }
    chosen = np.concatenate(list(cases.values()))
    titles = [
        f"{kind}\n{(test['finding'][i] or 'normal').split('|')[0]}\nscore {test[name][i]:.3f}"
        for kind, rows in cases.items()
        for i in rows
    ]
    display(Markdown(f"**{name}**"))
    shown_methods = {other: made[other][chosen] for other in made}
    display(run.save_figure(reconstructions(images.test[chosen], shown_methods, titles=titles), f"{name}-cases"))

# %% [markdown]
# ## What this cannot show
#
# * **Labels are wrong.** Labels mined from reports are noisy; of 36 adult test films that a radiologist called normal, 27
#   carry an abnormal mined label. Radiologists' readings exist for few films, so their intervals are wide.
# * **The films are small.** A nodule of 5 mm is less than two pixels wide at 64 px.
# * **Normal means normal *here*.** A film from another camera or another age group is anomalous to these networks without
#   being ill.
# * **A residual is not a diagnosis.** It is high where the network is surprised, also by a cable, a letter or a tilted patient.
# * **The phantoms are drawn by formulas.** What works on them has been shown to work on formulas.
#
# This is a research notebook. It is not a medical device.
