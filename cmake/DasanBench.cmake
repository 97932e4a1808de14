# Bench rules.
