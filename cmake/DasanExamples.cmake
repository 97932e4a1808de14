# Examples rules.
