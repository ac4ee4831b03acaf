"""From measurements to a fitted estimator; the only place that knows scikit-learn."""
