"""What the words of a page of fits mean."""

from __future__ import annotations

FACTS = [
    ("[a, b]", "95 % interval: the fitted law with normal misses between settings, their size as uncertain as so few "
     "leave it (Student's t); from 30 settings on, settings drawn with replacement. Simulated, it holds the truth in "
     "92 to 98 of 100 studies where the law is the true one; alpha's in 90 where E is 0 in truth and an offset is "
     "fitted (take the power law's there), and in 92 where seeds make the misses and settings differ in their number"),
    ("runs, settings", "runs of one setting differ in nothing but their seed, and a setting counts once, with the mean "
     "of its runs"),
    ("best of", "where settings of one size and length differ in a learning rate or a batch, the one with the least "
     "mean loss stands for them"),
    ("residual sd", "standard deviation of (observed - fitted) / fitted"),
    ("left out", "(predicted - observed) / observed of the largest, by the law of all smaller ones: below 0, the law "
     "promises too much"),
]  # fmt: skip
FACTS_OF = {
    "compute": [
        ("L(C)", "(C / C0)^-alpha + E with E >= 0 and alpha from 0.001 to 3, least squares of the loss; the power law "
         "has no E, least squares of its log"),
        ("0 (bound)", "E would be below 0: it, and then the lower ends of its interval and of alpha's, are this bound"),
        ("corr. alpha, E", "of their ranks over the draws that give the intervals: near 1, the runs decide only both "
         "together, and neither is to be quoted without its interval"),
        ("lack of fit", "F test of the misses of the settings' means against the differences between seeds: a small "
         "p says that no law of that form goes through the runs"),
        ("FLOPs", "6nd: 6 N D with all parameters; palm: attention added; chinchilla: embeddings and softmax added; "
         "cerebras: Cerebras-GPT's own count; reported: as printed in the paper"),
    ],
    "parametric": [
        ("L(N, D)", "E + A / N^alpha + B / D^beta of N parameters and D tokens, least sum of Huber losses (1e-3) of "
         "log residuals; best N* ~ C^(beta / (alpha + beta))"),
    ],
    "isoflop": [
        ("N*, D*", "size and tokens at the minimum of a parabola of loss in log N through the sizes nearest the best "
         "one of each budget; through all sizes beside it, as far from its minimum the loss is no parabola. A draw's "
         "minimum beyond the sizes trained counts at the last one"),
        ("interior", "the minimum lies inside the sizes trained, in at least 95 % of the draws or in the share given"),
    ],
    "hardware": [
        ("costs", "seconds, joules and US dollars of the steps alone (tokens over tokens per second), on all systems "
         "of a profile; what a job takes beside them (compiling, programming, sending weights, a checkpoint) stands "
         "beside: it would hide the law of small models; of what no profile tells, as of GPUs, nothing is counted"),
        ("joules, usd", "nameplate power and price of the profile, times the seconds; not known where it names none"),
        ("~", "modeled, not measured; extrapolated: beyond the sizes that the cost model was fitted to; where its "
         "latency binds, a profile that takes another's (h100 a100's, cs3 cs2's) has the same seconds"),
        ("losses", "the middle of those reached, the lowest, and one that no run reached, a tenth of their range "
         "lower"),
        ("inf", "more than one draw in 40 has an E above that loss"),
        ("cheapest", "of the machines in the table, the one whose job, with what it takes beside the steps, is least"),
    ],
    "learning_rate": [
        ("best lr", "minimum of the parabola in log rate through the best rate trained and its neighbours; its "
         "interval: normal noise of the seeds' standard deviation at those rates (Student's t)"),
        ("NOT interior", "the loss still falls at the last rate trained: the best one is there or beyond, and has no "
         "part in the power of the width, which needs three others"),
        ("lost", "how much higher the loss is at the narrowest model's best rate than at this one's, of rates trained"),
    ],
}  # fmt: skip
