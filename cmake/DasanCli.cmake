# Cli rules.
