"""The GPT, and log-likelihoods from it."""
