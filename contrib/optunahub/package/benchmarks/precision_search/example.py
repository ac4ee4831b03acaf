"""Sixty trials of NSGA-II on one space."""

import optuna
import optunahub

module = optunahub.load_local_module("benchmarks/precision_search", registry_root="package")
problem = module.Problem("byte-gpt-role", costs=["h100.latency_s"])
study = optuna.create_study(
    directions=problem.directions, sampler=optuna.samplers.NSGAIISampler(seed=0)
)
study.optimize(problem, n_trials=60)
for trial in study.best_trials:
    print(trial.values, trial.params)
