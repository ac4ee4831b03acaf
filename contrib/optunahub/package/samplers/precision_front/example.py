"""Thirty trials on an enumerated space."""

import optuna
import optunahub

benchmark = optunahub.load_local_module("benchmarks/precision_search", registry_root="package")
module = optunahub.load_local_module("samplers/precision_front", registry_root="package")
problem = benchmark.Problem("byte-gpt-role", costs=["h100.latency_s"])
sampler = module.PrecisionFrontSampler(problem.scores, problem.additive)
study = optuna.create_study(directions=problem.directions, sampler=sampler)
study.optimize(problem, n_trials=30)
for trial in study.best_trials:
    print(trial.values, trial.params)
