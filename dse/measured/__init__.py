"""Networks that a user timed, beside what is predicted for them."""
