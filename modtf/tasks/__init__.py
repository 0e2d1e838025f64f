"""Tasks that come with the package: E2E NLG."""
